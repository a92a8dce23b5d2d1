import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { createCertificateRequest, generateAgentKey } from '../../shared/node/certificate-request.ts'
import type { Sqlite } from '../../shared/node/sqlite.ts'
import { agentIdentityOf, parseCertificateChain } from '../../shared/node/tls.ts'
import { PROTOCOL_VERSION } from '../../shared/protocol/version.ts'
import { type Authority, createAuthority } from './authority.ts'
import { openPkiDatabase } from './database.ts'
import { createEnrolment, type Enrolment } from './enrolment.ts'
import { createEnrolmentTokens, TOKEN_ATTEMPTS_MAX } from './enrolment-tokens.ts'
import { createHolds, type Holds } from './holds.ts'
import { type KeysetStore, openKeysetStore } from './keyset-store.ts'
import { createRegistry, type PkiAlert, type Registry } from './registry.ts'

const dayMs = 86_400_000
const inventory = {
  hostName: 'web-1',
  operatingSystem: 'linux',
  operatingSystemVersion: '13',
  kernel: '6.12',
  architecture: 'x64',
  cpuModel: 'test',
  cpuCount: 1,
  memoryBytes: 1,
  addresses: [],
}

let folder: string
let authority: Authority
let keyset: KeysetStore
let nowMs = Date.now()
const clock = () => nowMs
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-enrolment-'))
  const created = await createAuthority(folder, {
    passphrase: 'a',
    rootPassphrase: 'b',
    rootKeyBits: 2_048,
    issuerKeyBits: 2_048,
    scryptCost: 2 ** 10,
    clock,
  })
  if (!created.ok) throw new Error(created.error.reason)
  authority = created.value
  const opened = openKeysetStore(folder, authority)
  if (!opened.ok) throw new Error(opened.error.reason)
  keyset = opened.value
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let database: Sqlite
let holds: Holds
let registry: Registry
let enrolment: Enrolment
let alerts: PkiAlert[]
let enrolled: string[]
beforeEach(() => {
  nowMs = Date.now()
  database = openPkiDatabase(join(folder, `${Math.random()}.db`))
  alerts = []
  enrolled = []
  start()
})
afterEach(() => database.close())

/** What a start of the controller does over the same database. */
function start() {
  const alert = (entry: PkiAlert) => alerts.push(entry)
  holds = createHolds(database, clock)
  registry = createRegistry({ database, clock, alert, holds })
  enrolment = createEnrolment({
    database,
    authority,
    registry,
    tokens: createEnrolmentTokens(database, clock),
    keyset,
    enrolmentUrl: 'https://controller:8443',
    gatewayUrl: 'wss://controller:8444/v1/agent',
    clock,
    alert,
    enrolled: ({ certificate }) => enrolled.push(certificate.agentId),
  })
}

function request(token: string, csrPem: string) {
  const [tokenId = '', tokenSecret = ''] = token.split('.')
  return { protocolVersion: PROTOCOL_VERSION, tokenId, tokenSecret, csrPem, inventory }
}
const newRequest = () => createCertificateRequest(generateAgentKey())
const kindOf = (result: { ok: true } | { ok: false; error: { kind: string } }) =>
  result.ok ? 'ok' : result.error.kind

/** Enrols a fresh agent and returns what the gateway would read from its certificate. */
function enrolAgent() {
  const result = enrolment.enrol(request(enrolment.createToken('ada', 60_000).token, newRequest()))
  if (!result.ok) throw new Error(result.error.reason)
  return readIdentity(result.value.certificateChainPem)
}
function readIdentity(chainPem: string) {
  const leaf = parseCertificateChain(chainPem)[0]
  const identity = leaf && agentIdentityOf(leaf)
  if (!identity?.ok) throw new Error('the chain has no agent')
  return identity.identity
}
function renewAgent(identity: ReturnType<typeof readIdentity>, csrPem = newRequest()) {
  const result = enrolment.renew(identity.agentId, identity.certificateFingerprint, csrPem)
  if (!result.ok) throw new Error(result.error.reason)
  return readIdentity(result.value.certificateChainPem)
}
const standing = ({ certificateFingerprint, agentId }: ReturnType<typeof readIdentity>) =>
  registry.authorise(certificateFingerprint, agentId)

test('a token enrols one host, which is authorised from then on and after a restart', () => {
  const agent = enrolAgent()
  expect(enrolled).toEqual([agent.agentId])
  expect(standing(agent)).toBe('ok')
  expect(registry.get(agent.agentId)).toMatchObject({
    generation: 1,
    group: 'default',
    keyFingerprint: agent.keyFingerprint,
    certificateFingerprint: agent.certificateFingerprint,
    revokedAtMs: null,
  })
  start()
  expect(standing(agent)).toBe('ok')
})

test('a token has an id, a secret and the pin of the root, and its secret is not kept', () => {
  const { token, expiresAt } = enrolment.createToken('ada', 600_000)
  const [id, secret, pin] = token.split('.')
  expect(token).toMatch(/^[0-9a-f]{16}\.[0-9a-f]{64}\.[0-9a-f]{64}$/)
  expect(pin).toBe(authority.rootFingerprint)
  expect(Date.parse(expiresAt)).toBe(nowMs + 600_000)
  const rows = JSON.stringify(database.prepare('SELECT * FROM token').all())
  expect(rows).toContain(id)
  expect(rows).not.toContain(secret)
})

test('a token asked for a week is valid for an hour', () => {
  const { token, expiresAt } = enrolment.createToken('ada', 7 * dayMs)
  expect(Date.parse(expiresAt)).toBe(nowMs + 3_600_000)
  nowMs += 3_600_000
  expect(kindOf(enrolment.enrol(request(token, newRequest())))).toBe('tokenExpired')
})

test('the same token with the same key gives the same identity, even after it expired', () => {
  const { token } = enrolment.createToken('ada', 60_000)
  const csrPem = newRequest()
  const first = enrolment.enrol(request(token, csrPem))
  nowMs += 120_000
  const second = enrolment.enrol(request(token, csrPem))
  expect(kindOf(first)).toBe('ok')
  expect(second).toEqual(first)
  expect(enrolled.length).toBe(1)
  expect(alerts).toEqual([])
})

test('the same token with another key is refused, and somebody hears of it', () => {
  const { token } = enrolment.createToken('ada', 60_000)
  expect(kindOf(enrolment.enrol(request(token, newRequest())))).toBe('ok')
  expect(kindOf(enrolment.enrol(request(token, newRequest())))).toBe('tokenUsed')
  expect(alerts).toMatchObject([{ kind: 'tokenReused', tokenId: token.slice(0, 16) }])
  expect(registry.list().length).toBe(1)
})

test('a key that has a certificate cannot have another by a second token', () => {
  const csrPem = newRequest()
  expect(kindOf(enrolment.enrol(request(enrolment.createToken('ada', 60_000).token, csrPem)))).toBe('ok')
  expect(kindOf(enrolment.enrol(request(enrolment.createToken('ada', 60_000).token, csrPem)))).toBe(
    'keyInUse',
  )
})

test('a wrong secret and an unknown id look the same, and guessing ends the token', () => {
  const { token } = enrolment.createToken('ada', 60_000)
  const wrong = `${token.slice(0, 17)}${'0'.repeat(64)}`
  const unknown = enrolment.enrol(request(`${'0'.repeat(16)}.${'0'.repeat(64)}`, newRequest()))
  for (let attempt = 0; attempt < TOKEN_ATTEMPTS_MAX; attempt += 1) {
    expect(enrolment.enrol(request(wrong, newRequest()))).toEqual(unknown)
  }
  expect(kindOf(enrolment.enrol(request(token, newRequest())))).toBe('tokenExhausted')
  expect(alerts).toMatchObject([{ kind: 'tokenGuessed' }])
})

test('a bad request and another protocol version leave the token unused', () => {
  const { token } = enrolment.createToken('ada', 60_000)
  expect(kindOf(enrolment.enrol(request(token, 'nonsense')))).toBe('requestInvalid')
  expect(kindOf(enrolment.enrol({ ...request(token, newRequest()), protocolVersion: 99 }))).toBe(
    'protocolVersion',
  )
  expect(kindOf(enrolment.enrol(request(token, newRequest())))).toBe('ok')
})

test('a certificate speaks for its own agent alone', () => {
  const [first, second] = [enrolAgent(), enrolAgent()]
  expect(registry.authorise(first.certificateFingerprint, second.agentId)).toBe('unknown')
  expect(registry.authorise('0'.repeat(64), first.agentId)).toBe('unknown')
})

test('revocation counts at once, tells the gateway, and survives a restart', () => {
  const agent = enrolAgent()
  const closed: string[] = []
  const stop = new AbortController()
  registry.onRevoked((agentId) => closed.push(agentId), stop.signal)
  expect(standing(agent)).toBe('ok')
  expect(registry.revoke(agent.agentId, 'stolen laptop')).toBe(true)
  expect(closed).toEqual([agent.agentId])
  expect(standing(agent)).toBe('revoked')
  expect(registry.revoke(agent.agentId, 'again')).toBe(false)
  expect(registry.revoke('0'.repeat(32), 'unknown')).toBe(false)
  start()
  expect(standing(agent)).toBe('revoked')
  expect(kindOf(enrolment.renew(agent.agentId, agent.certificateFingerprint, newRequest()))).toBe(
    'notAuthorised',
  )
  stop.abort()
})

test('the token of a revoked agent does not bring it back', () => {
  const { token } = enrolment.createToken('ada', 60_000)
  const csrPem = newRequest()
  const result = enrolment.enrol(request(token, csrPem))
  if (!result.ok) throw new Error(result.error.reason)
  registry.revoke(result.value.agentId, 'stolen')
  expect(kindOf(enrolment.enrol(request(token, csrPem)))).toBe('revoked')
})

test('after a renewal both certificates count until the new one is seen, then only the new one', () => {
  const before = enrolAgent()
  const after = renewAgent(before)
  expect(after.agentId).toBe(before.agentId)
  expect(standing(before)).toBe('ok')
  expect(registry.get(before.agentId)?.keyFingerprint).toBe(before.keyFingerprint)
  expect(standing(after)).toBe('ok')
  expect(registry.get(before.agentId)).toMatchObject({ generation: 2, keyFingerprint: after.keyFingerprint })
  expect(standing(before)).toBe('revoked')
  start()
  expect([standing(before), standing(after)]).toEqual(['revoked', 'ok'])
})

test('a renewal asked for again with the same key is the same, and the key in force is no new key', () => {
  const key = generateAgentKey()
  const first = enrolment.enrol(
    request(enrolment.createToken('ada', 60_000).token, createCertificateRequest(key)),
  )
  if (!first.ok) throw new Error(first.error.reason)
  const agent = readIdentity(first.value.certificateChainPem)
  const csrPem = newRequest()
  expect(renewAgent(agent, csrPem)).toEqual(renewAgent(agent, csrPem))
  const again = enrolment.renew(agent.agentId, agent.certificateFingerprint, createCertificateRequest(key))
  expect(kindOf(again)).toBe('keyInUse')
})

test("another agent's pending key cannot be taken over", () => {
  const [first, second] = [enrolAgent(), enrolAgent()]
  const csrPem = newRequest()
  renewAgent(first, csrPem)
  expect(kindOf(enrolment.renew(second.agentId, second.certificateFingerprint, csrPem))).toBe('keyInUse')
})

test('a clone is exposed: the old certificate after the new one was seen', () => {
  const before = enrolAgent()
  standing(renewAgent(before))
  nowMs += 10_000
  expect(standing(before)).toBe('revoked')
  // A batch that was on its way when the connection changed is no clone.
  expect(alerts).toEqual([])
  nowMs += 120_000
  expect(standing(before)).toBe('revoked')
  expect(standing(before)).toBe('revoked')
  expect(alerts).toMatchObject([{ kind: 'clonedIdentity', agentId: before.agentId }])
})

test('a clone is exposed: two hosts renew from the same certificate', () => {
  const shared = enrolAgent()
  const first = renewAgent(shared)
  const second = renewAgent(shared)
  expect(standing(second)).toBe('ok')
  nowMs += 120_000
  expect(standing(first)).toBe('revoked')
  expect(alerts).toMatchObject([{ kind: 'clonedIdentity' }])
})

test('a restored host with a replaced certificate is refused and told of; used beside the newer one, both are held', () => {
  const before = enrolAgent()
  const after = renewAgent(before)
  standing(after)
  nowMs += 120_000
  expect(standing(before)).toBe('revoked')
  expect(registry.get(before.agentId)?.heldAtMs).toBeNull()
  start()
  const held: string[] = []
  holds.onHeld((agentId) => held.push(agentId))
  expect(standing(after)).toBe('held')
  expect([standing(before), standing(after)]).toEqual(['held', 'held'])
  expect(held).toEqual([before.agentId])
  expect(holds.admit(before.agentId, 'boot')).toMatchObject({ kind: 'held' })
})

test('a held identity is held over a restart, and its contenders are few and known', () => {
  const agent = enrolAgent()
  expect(holds.hold('f'.repeat(32), 'unknown')).toBe(false)
  expect(holds.hold(agent.agentId, 'seen twice')).toBe(true)
  expect(holds.hold(agent.agentId, 'again')).toBe(false)
  start()
  expect(standing(agent)).toBe('held')
  expect(holds.admit(agent.agentId, 'boot')).toMatchObject({ kind: 'held', reason: /seen twice/ })
  const { certificateFingerprint } = agent
  for (let boot = 0; boot < 20; boot += 1) {
    nowMs += 1
    holds.note(agent.agentId, { bootId: `boot ${boot}`, certificateFingerprint, hostName: 'h', address: 'a' })
  }
  expect(holds.contenders(agent.agentId).map(({ bootId }) => bootId)).toEqual(
    [19, 18, 17, 16, 15, 14, 13, 12].map((boot) => `boot ${boot}`),
  )
})

test('the readmitted boot goes on alone and renews; then the copy of its old key is worth nothing, quietly', () => {
  const agent = enrolAgent()
  const { agentId, certificateFingerprint } = agent
  holds.hold(agentId, 'seen twice')
  for (const bootId of ['right', 'copy']) {
    holds.note(agentId, { bootId, certificateFingerprint, hostName: 'h', address: 'a' })
  }
  expect(holds.readmit(agentId, 'neither')).toBe('unknownBoot')
  expect(holds.readmit(agentId, 'right')).toBe('readmitted')
  expect(holds.contenders(agentId)).toEqual([])
  expect(standing(agent)).toBe('ok')
  expect(holds.admit(agentId, 'right')).toEqual({ kind: 'ok', renew: true })
  expect(holds.admit(agentId, 'copy')).toMatchObject({ kind: 'held', reason: /enrol this one anew/ })
  const renewed = renewAgent(agent)
  expect(standing(renewed)).toBe('ok')
  expect(holds.admit(agentId, 'any other boot')).toEqual({ kind: 'ok', renew: false })
  nowMs += 120_000
  expect(standing(agent)).toBe('revoked')
  expect(standing(renewed)).toBe('ok')
  expect(alerts).toEqual([])
  expect(holds.readmit(agentId, null)).toBe('notHeld')
})

test('the right one may be the one whose certificate the copy had replaced', () => {
  const original = enrolAgent()
  const { agentId } = original
  const copied = renewAgent(original)
  standing(copied)
  nowMs += 120_000
  standing(original)
  standing(copied)
  for (const [bootId, { certificateFingerprint }] of [
    ['right', original],
    ['copy', copied],
  ] as const) {
    holds.note(agentId, { bootId, certificateFingerprint, hostName: 'h', address: 'a' })
  }
  expect(holds.readmit(agentId, 'right')).toBe('readmitted')
  expect([standing(original), standing(copied)]).toEqual(['ok', 'revoked'])
  expect(standing(renewAgent(original))).toBe('ok')
  expect([standing(original), standing(copied)]).toEqual(['revoked', 'revoked'])
})

test('a certificate past its end counts no longer', () => {
  const agent = enrolAgent()
  expect(standing(agent)).toBe('ok')
  nowMs += 31 * dayMs
  expect(standing(agent)).toBe('unknown')
})
