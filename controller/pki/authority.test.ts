import { createHash, X509Certificate } from 'node:crypto'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createCertificateRequest, generateAgentKey } from '../../shared/node/certificate-request.ts'
import { signBytes, verifyBytes } from '../../shared/node/signing.ts'
import { parseCertificateChain } from '../../shared/node/tls.ts'
import { type Authority, createAuthority, openAuthority, renewIssuers } from './authority.ts'
import { openKeysetStore } from './keyset-store.ts'
import { createPassphraseFile, readPassphraseFile } from './passphrase-file.ts'
import { openRoot } from './root.ts'

const small = { rootKeyBits: 2_048, issuerKeyBits: 2_048, scryptCost: 2 ** 10 }
const secrets = { passphrase: 'online passphrase', rootPassphrase: 'root passphrase' }
const dayMs = 86_400_000
const agentId = 'ab'.repeat(16)

let folder: string
let authority: Authority
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-authority-'))
  authority = unwrap(await createAuthority(folder, { ...small, ...secrets }))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function unwrap<Value>(result: { ok: true; value: Value } | { ok: false; error: { reason: string } }): Value {
  if (!result.ok) throw new Error(result.error.reason)
  return result.value
}
const issue = (from: Authority, key = generateAgentKey()) =>
  unwrap(from.issueAgentCertificate(createCertificateRequest(key), agentId))

test('what was created opens again with the passphrase alone, as the same fleet', async () => {
  const opened = unwrap(await openAuthority(folder, secrets.passphrase))
  expect(opened.fleet).toBe(authority.fleet)
  expect(opened.rootFingerprint).toBe(authority.rootFingerprint)
  const bytes = Buffer.from('x')
  const keyset = unwrap(openKeysetStore(folder, opened)).keyset()
  const publicKey = keyset.controllers[0]?.publicKey ?? ''
  expect(verifyBytes('wrapper', bytes, signBytes('wrapper', bytes, opened.commandKey), publicKey)).toBe(true)
})

test('a wrong passphrase, the passphrase of the root and a folder without an authority are refused', async () => {
  expect(await openAuthority(folder, 'wrong')).toMatchObject({ error: { kind: 'wrongPassphrase' } })
  expect(await openAuthority(folder, secrets.rootPassphrase)).toMatchObject({
    error: { kind: 'wrongPassphrase' },
  })
  expect(await openRoot(join(folder, 'root'), secrets.passphrase)).toMatchObject({ ok: false })
  expect(await openAuthority(join(folder, 'root'), secrets.passphrase)).toMatchObject({
    error: { kind: 'notCreated' },
  })
})

test('an authority is never overwritten', async () => {
  expect(await createAuthority(folder, { ...small, ...secrets })).toMatchObject({ error: { kind: 'exists' } })
})

test('no private key lies in clear in any file, and only the owner reads the sealed ones', () => {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  const files = names.map((name) => join(folder, name)).filter((path) => statSync(path).isFile())
  expect(files.length).toBeGreaterThanOrEqual(6)
  for (const path of files) {
    const text = readFileSync(path, 'utf8')
    expect(text).not.toMatch(/PRIVATE KEY/)
  }
  expect(statSync(join(folder, 'online-keys.json')).mode & 0o777).toBe(0o600)
  expect(statSync(join(folder, 'root', 'root-key.json')).mode & 0o777).toBe(0o600)
})

test('an agent certificate is for the requested key and agent, for 30 days, under the agents issuer', () => {
  const key = generateAgentKey()
  const issued = issue(authority, key)
  const [leaf, issuer] = parseCertificateChain(issued.certificateChainPem)
  if (!leaf || !issuer) throw new Error('a leaf and its issuer are in the chain')
  const root = new X509Certificate(authority.rootPem)
  expect(leaf.checkPrivateKey(key)).toBe(true)
  expect(leaf.subjectAltName).toBe(`URI:urn:agent:${agentId}`)
  expect(leaf.ca).toBe(false)
  expect(leaf.keyUsage).toEqual(['1.3.6.1.5.5.7.3.2'])
  expect(leaf.checkIssued(issuer) && leaf.verify(issuer.publicKey)).toBe(true)
  expect(issuer.checkIssued(root) && issuer.verify(root.publicKey)).toBe(true)
  expect(issuer.ca && root.ca).toBe(true)
  expect(Math.abs(issued.expiresAtMs - Date.now() - 30 * dayMs)).toBeLessThan(60_000)
  expect(issued.certificateFingerprint).toBe(createHash('sha256').update(leaf.raw).digest('hex'))
  expect(leaf.serialNumber).toMatch(/^01[0-9A-F]{32}$/)
})

test('serials never repeat', () => {
  const key = generateAgentKey()
  expect(new Set(Array.from({ length: 20 }, () => issue(authority, key).serial)).size).toBe(20)
})

test('a request that proves nothing is refused as a value', () => {
  expect(authority.issueAgentCertificate('nonsense', agentId)).toMatchObject({
    error: { kind: 'requestInvalid' },
  })
  expect(() =>
    authority.issueAgentCertificate(createCertificateRequest(generateAgentKey()), '../x'),
  ).toThrow()
})

test("the controller's leaf is made anew at half life, with a new key, and carries the root", async () => {
  let nowMs = Date.now()
  const opened = unwrap(await openAuthority(folder, secrets.passphrase, () => nowMs))
  const first = opened.serverCredentials()
  expect(opened.serverCredentials()).toBe(first)
  nowMs += 14 * dayMs
  expect(opened.serverCredentials()).toBe(first)
  nowMs += 2 * dayMs
  const second = opened.serverCredentials()
  expect(second.keyPem).not.toBe(first.keyPem)
  const chain = parseCertificateChain(second.certificateChainPem)
  expect(chain.map((certificate) => certificate.ca)).toEqual([false, true, true])
  expect(chain[0]?.subjectAltName).toBe(`DNS:${opened.serverName}`)
  expect(chain[0]?.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1'])
  expect(chain[2]?.raw.equals(new X509Certificate(opened.rootPem).raw)).toBe(true)
})

test('issuers end after a year, and the root makes new ones without touching the fleet', async () => {
  const later = () => Date.now() + 366 * dayMs
  const other = mkdtempSync(join(tmpdir(), 'cordon-authority-'))
  try {
    const created = unwrap(await createAuthority(other, { ...small, ...secrets }))
    expect(await openAuthority(other, secrets.passphrase, later)).toMatchObject({
      error: { kind: 'issuerExpired' },
    })
    expect(await renewIssuers(other, { ...secrets, ...small, rootPassphrase: 'wrong' })).toMatchObject({
      ok: false,
    })
    const renewed = unwrap(await renewIssuers(other, { ...secrets, ...small, clock: later }))
    expect(renewed.expireAtMs).toBeGreaterThan(later() + 360 * dayMs)
    const opened = unwrap(await openAuthority(other, secrets.passphrase, later))
    expect(opened.rootFingerprint).toBe(created.rootFingerprint)
    expect(issue(opened).expiresAtMs).toBeGreaterThan(later())
  } finally {
    rmSync(other, { recursive: true, force: true })
  }
})

test('a leaf never outlives its issuer', async () => {
  const almost = () => Date.now() + 360 * dayMs
  const opened = unwrap(await openAuthority(folder, secrets.passphrase, almost))
  expect(issue(opened).expiresAtMs).toBeLessThanOrEqual(opened.issuersExpireAtMs)
  const [leaf] = parseCertificateChain(opened.serverCredentials().certificateChainPem)
  expect(leaf?.validToDate.getTime()).toBeLessThanOrEqual(opened.issuersExpireAtMs)
})

test('the keyset in force is replaced by a newer one of the root, and by nothing else', async () => {
  const store = unwrap(openKeysetStore(folder, authority))
  const root = unwrap(await openRoot(join(folder, 'root'), secrets.rootPassphrase))
  const next = { ...store.keyset(), version: 2 }
  expect(store.replace({ ...root.signKeyset(next), rootSignature: 'AAAA' })).toMatchObject({ ok: false })
  expect(store.replace(root.signKeyset(store.keyset()))).toMatchObject({ ok: false })
  expect(store.replace(root.signKeyset(next))).toEqual({ ok: true, value: { version: 2 } })
  expect(store.replace(root.signKeyset(next))).toMatchObject({ ok: false })
  expect(unwrap(openKeysetStore(folder, authority)).current().version).toBe(2)
})

test('a passphrase file is made once and refused when others may read it', () => {
  const path = join(folder, 'passphrase')
  const first = unwrap(createPassphraseFile(path))
  expect(first).toMatch(/^[0-9a-f]{64}$/)
  expect(unwrap(createPassphraseFile(path))).toBe(first)
  expect(unwrap(readPassphraseFile(path))).toBe(first)
  chmodSync(path, 0o640)
  expect(readPassphraseFile(path)).toMatchObject({ error: { kind: 'openToOthers' } })
})
