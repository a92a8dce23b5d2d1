/** Agent and controller together, from a token to a renewed certificate, over real TLS. */

import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { type EnrolResult, enrol } from '../agent/identity/enrol.ts'
import { type Identity, openIdentity } from '../agent/identity/identity.ts'
import { type Authority, createAuthority } from '../controller/pki/authority.ts'
import { openPkiDatabase } from '../controller/pki/database.ts'
import { createEnrolment, type Enrolment } from '../controller/pki/enrolment.ts'
import { type EnrolmentServer, startEnrolmentServer } from '../controller/pki/enrolment-server.ts'
import { createEnrolmentTokens } from '../controller/pki/enrolment-tokens.ts'
import { createHolds } from '../controller/pki/holds.ts'
import { type KeysetStore, openKeysetStore } from '../controller/pki/keyset-store.ts'
import { createRegistry, type PkiAlert, type Registry } from '../controller/pki/registry.ts'
import { openRoot, type Root } from '../controller/pki/root.ts'
import { createSilentLogger } from '../shared/node/logger.ts'
import type { Sqlite } from '../shared/node/sqlite.ts'
import { agentIdentityOf, enrolmentTlsOptions, parseCertificateChain } from '../shared/node/tls.ts'

const sizes = { rootKeyBits: 2_048, issuerKeyBits: 2_048, scryptCost: 2 ** 10 }
const inventory = {
  hostName: 'web-1',
  operatingSystem: 'linux',
  operatingSystemVersion: '13',
  kernel: '6.12',
  architecture: 'x64',
  cpuModel: 'test',
  cpuCount: 1,
  memoryBytes: 1,
  addresses: ['127.0.0.1'],
}

function unwrap<Value>(result: { ok: true; value: Value } | { ok: false; error: { reason: string } }): Value {
  if (!result.ok) throw new Error(result.error.reason)
  return result.value
}

let folder: string
let authority: Authority
let stranger: Authority
let root: Root
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-enrol-'))
  const secrets = { passphrase: 'a', rootPassphrase: 'b' }
  authority = unwrap(await createAuthority(join(folder, 'ours'), { ...sizes, ...secrets }))
  stranger = unwrap(await createAuthority(join(folder, 'theirs'), { ...sizes, ...secrets }))
  root = unwrap(await openRoot(join(folder, 'ours', 'root'), 'b'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let run: string
let stop: AbortController
let database: Sqlite
let registry: Registry
let enrolment: Enrolment
let keyset: KeysetStore
let server: EnrolmentServer
let alerts: PkiAlert[]
let url: string
beforeEach(async () => {
  run = mkdtempSync(join(folder, 'run-'))
  stop = new AbortController()
  alerts = []
  database = openPkiDatabase(join(run, 'pki.db'))
  const alert = (entry: PkiAlert) => alerts.push(entry)
  registry = createRegistry({ database, clock: Date.now, alert, holds: createHolds(database, Date.now) })
  keyset = unwrap(openKeysetStore(join(folder, 'ours'), authority))
  enrolment = createEnrolment({
    database,
    authority,
    registry,
    tokens: createEnrolmentTokens(database, Date.now),
    keyset,
    enrolmentUrl: '',
    gatewayUrl: 'wss://127.0.0.1:9/v1/agent',
    clock: Date.now,
    alert,
    enrolled: () => undefined,
  })
  const listener = {
    host: '127.0.0.1',
    port: 0,
    authority,
    enrolment,
    logger: createSilentLogger(),
    clock: Date.now,
  }
  server = await startEnrolmentServer(listener, stop.signal)
  url = `https://127.0.0.1:${server.port}`
})
afterEach(async () => {
  stop.abort()
  await server.stopped
  database.close()
})

const newToken = () => enrolment.createToken('ada', 60_000).token
const enrolIn = (name: string, token = newToken(), at = url) =>
  enrol({ url: at, token, folder: join(run, name), inventory })
function identityOf(result: EnrolResult): Identity {
  if (!result.ok) throw new Error(`${result.error.kind}: ${result.error.reason}`)
  return result.identity
}
function reopen(name: string): Identity {
  const opened = openIdentity(join(run, name))
  if (!opened.ok) throw new Error(opened.error.reason)
  return opened.identity
}
const kindOf = (result: EnrolResult) => (result.ok ? 'ok' : result.error.kind)
function fingerprintOf(name: string): string {
  const text = readFileSync(join(run, name, 'credentials.pem'), 'utf8')
  const leaf = parseCertificateChain(text)[0]
  const identity = leaf && agentIdentityOf(leaf)
  return identity?.ok ? identity.identity.certificateFingerprint : ''
}

test('a host enrols with a token and opens its identity again', async () => {
  const identity = identityOf(await enrolIn('agent'))
  expect(identity).toMatchObject({
    fleet: authority.fleet,
    serverName: authority.serverName,
    gatewayUrl: 'wss://127.0.0.1:9/v1/agent',
  })
  expect(registry.get(identity.agentId)?.keyFingerprint).toBe(identity.keyFingerprint())
  expect(registry.authorise(fingerprintOf('agent'), identity.agentId)).toBe('ok')
  const again = reopen('agent')
  expect(again.agentId).toBe(identity.agentId)
  expect(again.keyset()).toEqual(keyset.keyset())
  expect(again.renewalDue(Date.now())).toBe(false)
  expect(again.renewalDue(Date.now() + 20 * 86_400_000)).toBe(true)
})

test('only its owner reads what an enrolment wrote, and nothing half written stays behind', async () => {
  identityOf(await enrolIn('agent'))
  const files = readdirSync(join(run, 'agent')).sort()
  expect(files).toEqual(['credentials.pem', 'identity.json', 'keyset.json', 'root.pem'])
  expect(statSync(join(run, 'agent')).mode & 0o777).toBe(0o700)
  expect(statSync(join(run, 'agent', 'credentials.pem')).mode & 0o777).toBe(0o600)
})

test('the same token on the same host again changes nothing', async () => {
  const token = newToken()
  const first = identityOf(await enrolIn('agent', token))
  const before = readFileSync(join(run, 'agent', 'credentials.pem'), 'utf8')
  expect(identityOf(await enrolIn('agent', token)).agentId).toBe(first.agentId)
  expect(readFileSync(join(run, 'agent', 'credentials.pem'), 'utf8')).toBe(before)
  expect(registry.list().length).toBe(1)
})

test('an enrolment whose answer was lost goes on with the key that was sent', async () => {
  const token = newToken()
  const first = identityOf(await enrolIn('agent', token))
  // As a crash before the answer leaves it: the waiting key alone.
  const [key = ''] = readFileSync(join(run, 'agent', 'credentials.pem'), 'utf8').split('-----BEGIN CERT')
  rmSync(join(run, 'agent'), { recursive: true })
  const waiting = join(run, 'other')
  mkdirSync(waiting)
  writeFileSync(join(waiting, 'next-key.pem'), key, { mode: 0o600 })
  expect(identityOf(await enrolIn('other', token)).agentId).toBe(first.agentId)
  // With another token the lost key is of no use, and a new one takes its place.
  rmSync(join(waiting, 'identity.json'))
  writeFileSync(join(waiting, 'next-key.pem'), key, { mode: 0o600 })
  const second = identityOf(await enrolIn('other'))
  expect(second.agentId).not.toBe(first.agentId)
  expect(second.keyFingerprint()).not.toBe(first.keyFingerprint())
})

test('a token that one host used is refused to another, and an alert is raised', async () => {
  const token = newToken()
  identityOf(await enrolIn('first', token))
  const second = await enrolIn('second', token)
  expect(second).toMatchObject({ error: { kind: 'refused', reason: expect.stringContaining('tokenUsed') } })
  expect(alerts).toMatchObject([{ kind: 'tokenReused' }])
  expect(openIdentity(join(run, 'second'))).toMatchObject({ error: { kind: 'notEnrolled' } })
})

test('a wrong secret is refused with what to do about it', async () => {
  const [id, , pin] = newToken().split('.')
  const result = await enrolIn('agent', `${id}.${'0'.repeat(64)}.${pin}`)
  expect(result).toMatchObject({ error: { kind: 'refused', mend: expect.stringContaining('token') } })
})

test.each([
  ['', 'token'],
  ['a.b.c', 'token'],
  [`${'0'.repeat(16)}.${'0'.repeat(64)}`, 'token'],
])('the malformed token %j is refused before anything is dialled', async (token, kind) => {
  expect(kindOf(await enrolIn('agent', token, 'https://127.0.0.1:1'))).toBe(kind)
})

test.each([
  '',
  'http://127.0.0.1:1',
  'ftp://x',
  'https://user@127.0.0.1:1',
  'https://h:1/?q=1',
  '127.0.0.1:1',
])('the address %j is refused', async (address) => {
  expect(kindOf(await enrolIn('agent', newToken(), address))).toBe('url')
})

test('a server of another fleet is refused before anything is sent to it', async () => {
  let received = 0
  const impostor = createTlsServer(enrolmentTlsOptions(stranger.serverCredentials()), (socket) => {
    socket.on('data', (chunk: Buffer) => {
      received += chunk.length
    })
    socket.on('error', () => undefined)
  })
  impostor.listen(0, '127.0.0.1')
  await once(impostor, 'listening')
  const result = await enrolIn(
    'agent',
    newToken(),
    `https://127.0.0.1:${(impostor.address() as AddressInfo).port}`,
  )
  impostor.close()
  await once(impostor, 'close')
  expect(kindOf(result)).toBe('pin')
  expect(received).toBe(0)
})

test('an impostor that shows the genuine root beside its own certificate is refused before anything is sent', async () => {
  let received = 0
  const credentials = stranger.serverCredentials()
  const borrowed = credentials.certificateChainPem + authority.rootPem
  const impostor = createTlsServer(
    enrolmentTlsOptions({ keyPem: credentials.keyPem, certificateChainPem: borrowed }),
    (socket) => {
      socket.on('data', (chunk: Buffer) => {
        received += chunk.length
      })
      socket.on('error', () => undefined)
    },
  )
  impostor.listen(0, '127.0.0.1')
  await once(impostor, 'listening')
  const result = await enrolIn(
    'agent',
    newToken(),
    `https://127.0.0.1:${(impostor.address() as AddressInfo).port}`,
  )
  impostor.close()
  await once(impostor, 'close')
  expect(['pin', 'unreachable']).toContain(kindOf(result))
  expect(received).toBe(0)
})

test('a port where nobody answers, or where no TLS is spoken, is told as unreachable', async () => {
  const plain = createTcpServer((socket) => {
    socket.on('error', () => undefined)
    socket.resume().end('HTTP/1.1 400 Bad Request\r\n\r\n')
  })
  plain.listen(0, '127.0.0.1')
  await once(plain, 'listening')
  const port = (plain.address() as AddressInfo).port
  expect(kindOf(await enrolIn('agent', newToken(), `https://127.0.0.1:${port}`))).toBe('unreachable')
  plain.close()
  await once(plain, 'close')
  expect(kindOf(await enrolIn('agent', newToken(), `https://127.0.0.1:${port}`))).toBe('unreachable')
})

test('a host that is enrolled does not change fleets by a token', async () => {
  identityOf(await enrolIn('agent'))
  const token = `${'0'.repeat(16)}.${'0'.repeat(64)}.${stranger.rootFingerprint}`
  expect(kindOf(await enrolIn('agent', token))).toBe('otherFleet')
})

/** Renews as the gateway does it for a connected agent. */
function renewOverGateway(identity: Identity, name: string): string {
  const result = enrolment.renew(identity.agentId, fingerprintOf(name), identity.startRenewal())
  return unwrap(result).certificateChainPem
}

test('a renewal switches key and certificate together, and the old certificate ends when the new one is seen', async () => {
  const identity = identityOf(await enrolIn('agent'))
  const before = { key: identity.keyFingerprint(), certificate: fingerprintOf('agent') }
  expect(identity.finishRenewal(renewOverGateway(identity, 'agent'))).toEqual({ ok: true })
  expect(identity.keyFingerprint()).not.toBe(before.key)
  expect(reopen('agent').keyFingerprint()).toBe(identity.keyFingerprint())
  expect(registry.authorise(before.certificate, identity.agentId)).toBe('ok')
  expect(registry.authorise(fingerprintOf('agent'), identity.agentId)).toBe('ok')
  expect(registry.authorise(before.certificate, identity.agentId)).toBe('revoked')
})

test('a renewal cut short at any point goes on from where it was', async () => {
  const identity = identityOf(await enrolIn('agent'))
  const request = identity.startRenewal()
  const chain = renewOverGateway(identity, 'agent')
  // A crash after asking: the same key waits, and the controller gives the same certificate.
  const restarted = reopen('agent')
  expect(parseCertificateChain(renewOverGateway(restarted, 'agent'))[0]?.fingerprint256).toBe(
    parseCertificateChain(chain)[0]?.fingerprint256,
  )
  expect(request).not.toBe('')
  // A crash after the switch and before the waiting key was removed.
  const key = readFileSync(join(run, 'agent', 'next-key.pem'), 'utf8')
  expect(restarted.finishRenewal(chain)).toEqual({ ok: true })
  writeFileSync(join(run, 'agent', 'next-key.pem'), key, { mode: 0o600 })
  const after = reopen('agent')
  expect(after.keyFingerprint()).toBe(restarted.keyFingerprint())
  expect(readdirSync(join(run, 'agent'))).not.toContain('next-key.pem')
  expect(after.finishRenewal(renewOverGateway(after, 'agent'))).toEqual({ ok: true })
})

test('a certificate that is not the answer to the renewal changes nothing', async () => {
  const identity = identityOf(await enrolIn('agent'))
  const other = identityOf(await enrolIn('other'))
  const before = readFileSync(join(run, 'agent', 'credentials.pem'), 'utf8')
  expect(identity.finishRenewal(before).ok).toBe(false)
  const csr = identity.startRenewal()
  const foreign = unwrap(stranger.issueAgentCertificate(csr, identity.agentId)).certificateChainPem
  const renamed = unwrap(authority.issueAgentCertificate(csr, other.agentId)).certificateChainPem
  const leafAlone = parseCertificateChain(
    unwrap(authority.issueAgentCertificate(csr, identity.agentId)).certificateChainPem,
  )[0]
  for (const chain of ['', 'nonsense', before, foreign, renamed, String(leafAlone), authority.rootPem]) {
    expect(identity.finishRenewal(chain).ok).toBe(false)
  }
  expect(readFileSync(join(run, 'agent', 'credentials.pem'), 'utf8')).toBe(before)
})

test('the agent keeps the newest keyset of its root and never goes back', async () => {
  const identity = identityOf(await enrolIn('agent'))
  const base = identity.keyset()
  const [second, third] = [2, 3].map((version) => root.signKeyset({ ...base, version }))
  if (!second || !third) throw new Error('two keysets were signed')
  expect(identity.saveKeyset(third)).toEqual({ ok: true, version: 3 })
  expect(identity.saveKeyset(second)).toMatchObject({ failure: { kind: 'version' } })
  expect(identity.saveKeyset({ ...third, rootSignature: second.rootSignature })).toMatchObject({
    failure: { kind: 'signature' },
  })
  const reopened = reopen('agent')
  expect(reopened.keyset().version).toBe(3)
  expect(reopened.saveKeyset(second)).toMatchObject({ failure: { kind: 'version' } })
  // The controller still has version 1: enrolling again cannot bring that back either.
  expect(kindOf(await enrolIn('agent'))).toBe('answer')
  expect(reopen('agent').keyset().version).toBe(3)
})

test('a host that was never enrolled is told what to type', () => {
  const result = openIdentity(join(run, 'nothing'))
  expect(result).toMatchObject({
    error: { kind: 'notEnrolled', mend: expect.stringContaining('cordon-agent enroll') },
  })
})

test.each(['credentials.pem', 'identity.json', 'keyset.json', 'root.pem'])(
  'damage to %s is told, never thrown',
  async (name) => {
    identityOf(await enrolIn('agent'))
    const path = join(run, 'agent', name)
    const content = readFileSync(path)
    for (const damaged of [
      Buffer.alloc(0),
      content.subarray(0, content.length / 2),
      Buffer.from('{"v":1}'),
    ]) {
      writeFileSync(path, damaged)
      expect(openIdentity(join(run, 'agent'))).toMatchObject({ ok: false, error: { kind: 'damaged' } })
    }
    rmSync(path)
    const kind = name === 'identity.json' ? 'notEnrolled' : 'damaged'
    expect(openIdentity(join(run, 'agent'))).toMatchObject({ error: { kind } })
  },
)

test("files of another host's identity do not fit together", async () => {
  identityOf(await enrolIn('agent'))
  identityOf(await enrolIn('other'))
  writeFileSync(join(run, 'agent', 'credentials.pem'), readFileSync(join(run, 'other', 'credentials.pem')))
  expect(openIdentity(join(run, 'agent'))).toMatchObject({ error: { kind: 'damaged' } })
})
