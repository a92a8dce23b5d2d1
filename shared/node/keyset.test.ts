import { constants, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { expect, test } from 'vitest'
import type { Keyset } from '../protocol/commands.ts'
import { signKeyset, verifyKeyset } from './keyset.ts'
import { generateSigningKey, keyIdOf, rawPublicKey, withDomain } from './signing.ts'

const createRoot = () => generateKeyPairSync('rsa', { modulusLength: 2_048 })
const root = createRoot()
const fleet = 'f'.repeat(32)
const nowMs = 1_800_000_000_000
const expected = { rootKey: root.publicKey, fleet, versionMin: 1, nowMs }

function entry() {
  const publicKey = rawPublicKey(generateSigningKey())
  return { keyId: keyIdOf(publicKey), publicKey }
}
const operator = { ...entry(), kind: 'ed25519' as const, name: 'ada', classes: ['C' as const] }
const keyset: Keyset = {
  v: 1,
  fleet,
  version: 3,
  issued: nowMs - 1_000,
  expires: nowMs + 1_000,
  operators: [operator],
  thresholds: { C: 1, D: 2 },
  controllers: [entry()],
}

/** Signs what `signKeyset` refuses to sign: the root's holder may err, the verifier may not. */
function signAnyway(value: unknown) {
  const bytes = Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))
  return signWithRoot(bytes, withDomain('keyset', bytes))
}
function signWithRoot(bytes: Buffer, signed: Buffer) {
  const key = { key: root.privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }
  return { keyset: bytes.toString('base64'), rootSignature: sign('sha256', signed, key).toString('base64') }
}
const failureOf = (result: ReturnType<typeof verifyKeyset>) => (result.ok ? 'ok' : result.failure.kind)

test('a keyset that the root signed is taken', () => {
  expect(verifyKeyset(signKeyset(keyset, root.privateKey), expected)).toEqual({ ok: true, keyset })
})

test('the same bytes under the key of another root are refused', () => {
  const signed = signKeyset(keyset, createRoot().privateKey)
  expect(failureOf(verifyKeyset(signed, expected))).toBe('signature')
})

test('a root signature made for another purpose is refused', () => {
  const bytes = Buffer.from(JSON.stringify(keyset))
  expect(failureOf(verifyKeyset(signWithRoot(bytes, withDomain('intent', bytes)), expected))).toBe(
    'signature',
  )
  expect(failureOf(verifyKeyset(signWithRoot(bytes, bytes), expected))).toBe('signature')
})

test('a flipped bit in any byte is refused', () => {
  const signed = signKeyset(keyset, root.privateKey)
  for (const field of ['keyset', 'rootSignature'] as const) {
    const bytes = Buffer.from(signed[field], 'base64')
    for (let index = 0; index < bytes.length; index += 1) {
      const changed = Buffer.from(bytes)
      changed.writeUInt8(bytes.readUInt8(index) ^ 1, index)
      expect(failureOf(verifyKeyset({ ...signed, [field]: changed.toString('base64') }, expected))).toBe(
        'signature',
      )
    }
  }
})

test('there is no way back to an older version, and the version in force loads again', () => {
  const signed = signKeyset(keyset, root.privateKey)
  expect(failureOf(verifyKeyset(signed, { ...expected, versionMin: 3 }))).toBe('ok')
  expect(failureOf(verifyKeyset(signed, { ...expected, versionMin: 4 }))).toBe('version')
})

test('an expired keyset is refused where the clock decides', () => {
  const signed = signKeyset(keyset, root.privateKey)
  expect(failureOf(verifyKeyset(signed, { ...expected, nowMs: keyset.expires }))).toBe('expired')
  expect(failureOf(verifyKeyset(signed, { ...expected, nowMs: null }))).toBe('ok')
})

test('a keyset of another fleet is refused', () => {
  expect(
    failureOf(verifyKeyset(signKeyset(keyset, root.privateKey), { ...expected, fleet: '0'.repeat(32) })),
  ).toBe('fleet')
})

test.each([
  ['a key id of another key', { ...keyset, operators: [{ ...operator, keyId: '0'.repeat(64) }] }],
  ['one key under two names', { ...keyset, operators: [operator, { ...operator, name: 'bob' }] }],
  [
    'a controller key that is an operator too',
    { ...keyset, controllers: [{ keyId: operator.keyId, publicKey: operator.publicKey }] },
  ],
  ['an expiry before the issue', { ...keyset, expires: nowMs, issued: nowMs }],
])('a keyset with %s is neither signed nor taken', (_, contradictory) => {
  expect(() => signKeyset(contradictory, root.privateKey)).toThrow(/not valid/)
  expect(failureOf(verifyKeyset(signAnyway(contradictory), { ...expected, nowMs: null }))).toBe(
    'inconsistent',
  )
})

test.each([
  ['{}'],
  ['null'],
  ['{"v":1'],
  [JSON.stringify({ ...keyset, extra: 1 })],
  [JSON.stringify(keyset).replace('"version":3', '"version":3,"version":9')],
  [JSON.stringify(keyset, null, 1)],
])('signed bytes that are no keyset (%#) are refused after the signature', (text) => {
  expect(failureOf(verifyKeyset(signAnyway(text), expected))).toBe('malformed')
})

test('texts that are not base64, and a root of another algorithm, are refused without an error', () => {
  const signed = signKeyset(keyset, root.privateKey)
  const edwards: KeyObject = generateSigningKey()
  expect(failureOf(verifyKeyset({ ...signed, keyset: '%' }, expected))).toBe('malformed')
  expect(failureOf(verifyKeyset(signed, { ...expected, rootKey: edwards }))).toBe('signature')
})
