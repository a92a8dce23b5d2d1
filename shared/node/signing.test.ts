import { generateKeyPairSync } from 'node:crypto'
import { expect, test } from 'vitest'
import {
  decodeBase64,
  decodeUtf8,
  generateSigningKey,
  keyIdOf,
  publicKeyFromRaw,
  rawPublicKey,
  signBytes,
  verifyBytes,
} from './signing.ts'

const key = generateSigningKey()
const publicKey = rawPublicKey(key)
const bytes = Buffer.from('{"v":1}')

test('a signature verifies over its own bytes, domain and key alone', () => {
  const signature = signBytes('intent', bytes, key)
  expect(signature.keyId).toBe(keyIdOf(publicKey))
  expect(verifyBytes('intent', bytes, signature, publicKey)).toBe(true)
  expect(verifyBytes('wrapper', bytes, signature, publicKey)).toBe(false)
  expect(verifyBytes('keyset', bytes, signature, publicKey)).toBe(false)
  expect(verifyBytes('intent', Buffer.from('{"v":1} '), signature, publicKey)).toBe(false)
  expect(verifyBytes('intent', bytes, signature, rawPublicKey(generateSigningKey()))).toBe(false)
})

test('a flipped bit anywhere in the signature is refused', () => {
  const signature = signBytes('intent', bytes, key)
  for (let bit = 0; bit < 512; bit += 1) {
    const changed = Buffer.from(signature.signature, 'hex')
    changed.writeUInt8(changed.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3)
    const forged = { ...signature, signature: changed.toString('hex') }
    expect(verifyBytes('intent', bytes, forged, publicKey)).toBe(false)
  }
})

test('malformed signatures and keys are refused without an error', () => {
  const signature = signBytes('intent', bytes, key)
  for (const text of [
    '',
    'zz',
    signature.signature.slice(2),
    `${signature.signature}00`,
    signature.signature.toUpperCase(),
  ]) {
    expect(verifyBytes('intent', bytes, { ...signature, signature: text }, publicKey)).toBe(false)
  }
  expect(verifyBytes('intent', bytes, { ...signature, keyId: '0'.repeat(64) }, publicKey)).toBe(false)
  expect(verifyBytes('intent', bytes, { ...signature, keyId: keyIdOf('zz') }, 'zz')).toBe(false)
})

test('raw keys survive the way through key objects', () => {
  expect(rawPublicKey(publicKeyFromRaw(publicKey))).toBe(publicKey)
  expect(() => publicKeyFromRaw('00')).toThrow(/32 bytes/)
})

test('a key of another kind is a programmer error', () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  expect(() => signBytes('intent', bytes, privateKey)).toThrow(/Ed25519/)
})

test('base64 has one form, and bytes that are not UTF-8 have no text', () => {
  expect(decodeBase64('AAE=')).toEqual(Buffer.from([0, 1]))
  for (const text of ['AAE', 'AAF=', 'AAE=\n', 'AA-_', '=', 'AAE=='])
    expect(decodeBase64(text)).toBeUndefined()
  expect(decodeUtf8(Buffer.from('\u20ac'))).toBe('\u20ac')
  expect(decodeUtf8(Buffer.from([0xc3, 0x28]))).toBeUndefined()
  expect(decodeUtf8(Buffer.from([0xef, 0xbb, 0xbf, 0x7b]))).toBe('\ufeff{')
})
