import { type KeyObject, X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { createCertificateRequest, generateAgentKey } from '../../shared/node/certificate-request.ts'
import { proveOldKey } from '../../shared/node/renewal-proof.ts'
import type { Sqlite } from '../../shared/node/sqlite.ts'
import { PROTOCOL_VERSION } from '../../shared/protocol/version.ts'
import { type Authority, createAuthority, type IssuedCertificate } from './authority.ts'
import { openPkiDatabase } from './database.ts'
import { createExpiredRenewals, type ExpiredRenewals, type PendingRenewal } from './expired-renewal.ts'
import { createHolds, type Holds } from './holds.ts'
import { createRegistry, type Registry } from './registry.ts'

const DAY_MS = 86_400_000
const AGENT = 'ab'.repeat(16)
let folder: string
let nowMs = Date.now()
const clock = () => nowMs
let authority: Authority
let stranger: Authority
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-expired-'))
  const create = async (name: string) => {
    const options = { passphrase: 'a', rootPassphrase: 'b', rootKeyBits: 2_048, issuerKeyBits: 2_048 }
    const created = await createAuthority(join(folder, name), { ...options, scryptCost: 2 ** 10, clock })
    if (!created.ok) throw new Error(created.error.reason)
    return created.value
  }
  authority = await create('ours')
  stranger = await create('theirs')
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let database: Sqlite
let registry: Registry
let holds: Holds
let renewals: ExpiredRenewals
let asked: PendingRenewal[]
let oldKey: KeyObject
let old: IssuedCertificate
beforeEach(() => {
  nowMs = Date.now()
  database = openPkiDatabase(join(folder, `${Math.random()}.db`))
  asked = []
  holds = createHolds(database, clock)
  registry = createRegistry({ database, clock, alert: () => undefined, holds })
  renewals = createExpiredRenewals({
    database,
    authority,
    registry,
    clock,
    asked: (renewal) => asked.push(renewal),
  })
  oldKey = generateAgentKey()
  old = issue(authority, oldKey)
  registry.enter(old, 'default')
})
afterEach(() => database.close())

function issue(from: Authority, key: KeyObject): IssuedCertificate {
  const issued = from.issueAgentCertificate(createCertificateRequest(key), AGENT)
  if (!issued.ok) throw new Error(issued.error.reason)
  return issued.value
}

function requestOf(more: { chainPem?: string; key?: KeyObject; nonce?: string; csrPem?: string } = {}) {
  const nonce = more.nonce ?? renewals.nonce()
  const csrPem = more.csrPem ?? createCertificateRequest(generateAgentKey())
  return {
    protocolVersion: PROTOCOL_VERSION,
    nonce,
    certificateChainPem: more.chainPem ?? old.certificateChainPem,
    csrPem,
    signature: proveOldKey(more.key ?? oldKey, nonce, csrPem),
  }
}
const ask = (more: Parameters<typeof requestOf>[0] = {}) => renewals.ask(requestOf(more), '192.0.2.1')
const kindOf = (result: ReturnType<typeof ask>) => (result.ok ? result.value.state : result.error.kind)

test('nothing is issued before a person approved; then the same key fetches its certificate, once it is seen the old is out', () => {
  nowMs += 40 * DAY_MS
  const key = generateAgentKey()
  const csrPem = createCertificateRequest(key)
  expect([kindOf(ask({ csrPem })), kindOf(ask({ csrPem }))]).toEqual(['pending', 'pending'])
  expect(asked).toMatchObject([{ agentId: AGENT, address: '192.0.2.1', expiredAtMs: old.expiresAtMs }])
  expect(renewals.pending()).toHaveLength(1)
  expect(renewals.approve(AGENT)).toMatchObject({ ok: true })
  expect(renewals.approve(AGENT)).toMatchObject({ ok: false, error: { kind: 'notPending' } })
  expect(renewals.pending()).toEqual([])
  const answer = ask({ csrPem })
  if (!answer.ok || answer.value.state !== 'renewed') throw new Error(kindOf(answer))
  const leaf = new X509Certificate(answer.value.certificateChainPem)
  expect(leaf.checkPrivateKey(key)).toBe(true)
  expect(leaf.validToDate.getTime()).toBeGreaterThan(nowMs + 29 * DAY_MS)
  const fingerprint = leaf.fingerprint256.replaceAll(':', '').toLowerCase()
  expect(registry.authorise(fingerprint, AGENT)).toBe('ok')
  expect(registry.authorise(old.certificateFingerprint, AGENT)).toBe('revoked')
  expect(kindOf(ask())).toBe('replaced')
})

test('a request with another key is another request: what was approved before is not its', () => {
  nowMs += 40 * DAY_MS
  ask()
  renewals.approve(AGENT)
  expect(kindOf(ask())).toBe('pending')
  expect(asked).toHaveLength(2)
  expect(renewals.pending()).toHaveLength(1)
})

test.each<[string, number, string]>([
  ['a certificate that is valid', 29, 'notExpired'],
  ['one that ran out a moment ago', 30.01, 'pending'],
  ['one that ran out 89 days ago', 119, 'pending'],
  ['one that ran out 91 days ago', 121, 'expiredTooLong'],
])('%s: %s days after it was issued: %s', (_name, days, kind) => {
  nowMs += days * DAY_MS
  expect(kindOf(ask())).toBe(kind)
})

test('what proves nothing is refused', () => {
  nowMs += 40 * DAY_MS
  expect(kindOf(ask({ key: generateAgentKey() }))).toBe('proofInvalid')
  expect(kindOf(ask({ chainPem: issue(stranger, oldKey).certificateChainPem }))).toBe('proofInvalid')
  expect(kindOf(ask({ chainPem: 'no chain' }))).toBe('proofInvalid')
  expect(kindOf(ask({ chainPem: issue(authority, oldKey).certificateChainPem }))).toBe('unknownCertificate')
  const signed = requestOf()
  const elsewhere = { ...signed, csrPem: createCertificateRequest(generateAgentKey()) }
  expect(kindOf(renewals.ask(elsewhere, ''))).toBe('proofInvalid')
  expect(kindOf(ask({ csrPem: createCertificateRequest(oldKey) }))).toBe('keyInUse')
  expect(kindOf(ask({ csrPem: 'no request' }))).toBe('requestInvalid')
  expect(asked).toEqual([])
})

test('a nonce is one that this process made, in the last minutes', () => {
  nowMs += 40 * DAY_MS
  const nonce = renewals.nonce()
  expect(nonce).toMatch(/^[0-9a-f]{112}$/)
  const later = `${nonce.slice(0, 40)}ffffffff${nonce.slice(48)}`
  const other = createExpiredRenewals({ database, authority, registry, clock, asked: () => undefined })
  for (const wrong of [later, other.nonce(), '0'.repeat(112)]) {
    expect(kindOf(ask({ nonce: wrong }))).toBe('nonceInvalid')
  }
  expect(kindOf(ask({ nonce }))).toBe('pending')
})

test('a held and a revoked agent get none, also when that came after the request', () => {
  nowMs += 40 * DAY_MS
  ask()
  holds.hold(AGENT, 'seen twice')
  expect(kindOf(ask())).toBe('held')
  expect(renewals.approve(AGENT)).toMatchObject({ ok: false, error: { kind: 'held' } })
  holds.readmit(AGENT, null)
  registry.revoke(AGENT, 'stolen')
  expect(kindOf(ask())).toBe('revoked')
  expect(renewals.approve(AGENT)).toMatchObject({ ok: false, error: { kind: 'revoked' } })
})
