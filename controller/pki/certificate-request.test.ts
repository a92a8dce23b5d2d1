import { createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createCertificateRequest, generateAgentKey } from '../../shared/node/certificate-request.ts'
import { sha256Hex } from '../../shared/node/signing.ts'
import { readCertificateRequest } from './certificate-request.ts'
import { spkiOf } from './root.ts'

const key = generateAgentKey()
const pem = createCertificateRequest(key)
const der = Buffer.from(pem.split('\n').slice(1, -2).join(''), 'base64')
const toPem = (bytes: Buffer) =>
  `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`
const element = (tag: number, ...parts: Buffer[]) => {
  const content = Buffer.concat(parts)
  const length = content.length < 0x80 ? [content.length] : [0x82, content.length >> 8, content.length & 0xff]
  return Buffer.concat([
    Buffer.from([
      tag,
      ...(content.length > 0x7f && content.length < 0x100 ? [0x81, content.length] : length),
    ]),
    content,
  ])
}

/** A request as anybody may make one, with any key, subject and signer. */
function makeRequest(parts: {
  spki?: Buffer
  signer?: KeyObject
  subject?: Buffer
  algorithm?: Buffer
  version?: Buffer
}) {
  const info = element(
    0x30,
    parts.version ?? Buffer.from('020100', 'hex'),
    parts.subject ?? Buffer.from('3000', 'hex'),
    parts.spki ?? spkiOf(key),
    Buffer.from('a000', 'hex'),
  )
  const algorithm = parts.algorithm ?? Buffer.from('300a06082a8648ce3d040302', 'hex')
  const signature = sign('sha256', info, parts.signer ?? key)
  return toPem(element(0x30, info, algorithm, element(0x03, Buffer.from([0]), signature)))
}
const outcome = (text: string) => {
  const result = readCertificateRequest(text)
  return result.ok ? 'ok' : result.error.reason
}

test('a request with a P-256 key that signed it gives that key', () => {
  const result = readCertificateRequest(pem)
  expect(result).toEqual({ ok: true, value: { spki: spkiOf(key), keyFingerprint: sha256Hex(spkiOf(key)) } })
  expect(outcome(makeRequest({}))).toBe('ok')
})

test('the subject of a request is ignored', () => {
  const name = element(0x30, Buffer.from('06035504030c0461646d', 'hex'))
  expect(outcome(makeRequest({ subject: element(0x30, element(0x31, name)) }))).toBe('ok')
})

test('a request that another key signed proves nothing', () => {
  expect(outcome(makeRequest({ signer: generateAgentKey() }))).toMatch(/not signed by its own key/)
})

test('other curves, other algorithms and points off the curve are refused', () => {
  const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 }).privateKey
  expect(outcome(makeRequest({ spki: spkiOf(p384), signer: p384 }))).toMatch(/P-256/)
  expect(outcome(makeRequest({ spki: spkiOf(rsa), signer: rsa }))).toMatch(/P-256/)
  expect(outcome(makeRequest({ algorithm: Buffer.from('300a06082a8648ce3d040303', 'hex') }))).toMatch(/ECDSA/)
  const offCurve = spkiOf(key)
  offCurve.writeUInt8(offCurve.readUInt8(90) ^ 1, 90)
  expect(outcome(makeRequest({ spki: offCurve }))).toMatch(/DER/)
  expect(outcome(makeRequest({ version: Buffer.from('020101', 'hex') }))).toMatch(/version/)
})

test('any flipped bit is refused', () => {
  for (let bit = 0; bit < der.length * 8; bit += 1) {
    const changed = Buffer.from(der)
    changed.writeUInt8(changed.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3)
    expect(outcome(toPem(changed)), `bit ${bit}`).not.toBe('ok')
  }
})

test.each([
  ['nothing', ''],
  ['no PEM', 'x'],
  ['no DER', toPem(Buffer.from('hello'))],
  ['an end too early', toPem(der.subarray(0, -1))],
  ['bytes after the end', toPem(Buffer.concat([der, Buffer.from([0])]))],
  ['an indefinite length', toPem(Buffer.from('30800000', 'hex'))],
  ['a length beyond all bounds', toPem(Buffer.from('3084ffffffff', 'hex'))],
  ['a certificate', pem.replaceAll('CERTIFICATE REQUEST', 'CERTIFICATE')],
  ['text around it', `text\n${pem}`],
  ['two requests', pem + pem],
  ['9 KB', toPem(Buffer.alloc(9_000))],
  ['deep nesting', toPem(Buffer.alloc(6_000, Buffer.from('3002', 'hex')))],
])('hostile input, %s, is refused', (_, text) => {
  expect(outcome(text)).not.toBe('ok')
})

test('whatever bytes come, the reader ends in a value', () => {
  const spliced = fc
    .tuple(fc.nat({ max: der.length }), fc.nat({ max: 8 }), fc.uint8Array({ maxLength: 12 }))
    .map(([at, drop, bytes]) => Buffer.concat([der.subarray(0, at), bytes, der.subarray(at + drop)]))
  fc.assert(
    fc.property(spliced, (bytes) => {
      if (bytes.equals(der)) return
      expect(outcome(toPem(bytes))).not.toBe('ok')
    }),
    { numRuns: 2_000 },
  )
})

test('only P-256 keys make requests', () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' })
  expect(() => createCertificateRequest(privateKey)).toThrow(/P-256/)
  expect(createPublicKey(generateAgentKey()).asymmetricKeyDetails?.namedCurve).toBe('prime256v1')
})
