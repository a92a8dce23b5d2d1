import type { createPrivateKey } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ConnectionOptions, connect, createServer, type Server, type TLSSocket } from 'node:tls'
import forge from 'node-forge'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { createCertificateRequest, generateAgentKey } from '../../shared/node/certificate-request.ts'
import {
  agentFacingTlsOptions,
  type Credentials,
  controllerFacingTlsOptions,
  type PeerIdentityResult,
  peerIdentity,
} from '../../shared/node/tls.ts'
import { type Authority, createAuthority, openAuthority } from './authority.ts'
import { type OnlineKeys, readOnlineKeys } from './online-keys.ts'

const agentId = 'ab'.repeat(16)
const dayMs = 86_400_000
const sizes = { rootKeyBits: 2_048, issuerKeyBits: 2_048, scryptCost: 2 ** 10 }

let folder: string
let authority: Authority
let stranger: Authority
let keys: OnlineKeys
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-mtls-'))
  authority = await create(join(folder, 'ours'))
  stranger = await create(join(folder, 'theirs'))
  const read = await readOnlineKeys(join(folder, 'ours'), 'a')
  if (!read.ok) throw new Error(read.error.reason)
  keys = read.value
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

async function create(path: string): Promise<Authority> {
  const created = await createAuthority(path, { ...sizes, passphrase: 'a', rootPassphrase: 'b' })
  if (!created.ok) throw new Error(created.error.reason)
  return created.value
}

function agentCredentials(from: Authority = authority): Credentials {
  const key = generateAgentKey()
  const issued = from.issueAgentCertificate(createCertificateRequest(key), agentId)
  if (!issued.ok) throw new Error(issued.error.reason)
  return { keyPem: pemOf(key), certificateChainPem: issued.value.certificateChainPem }
}
const pemOf = (key: ReturnType<typeof createPrivateKey>) =>
  key.export({ format: 'pem', type: 'pkcs8' }).toString()

let server: Server
let port: number
let identities: PeerIdentityResult[]
const sockets = new Set<TLSSocket>()
beforeEach(async () => {
  await listen(authority.serverCredentials())
})
afterEach(() => close())

async function listen(credentials: Credentials) {
  identities = []
  server = createServer(agentFacingTlsOptions(credentials, authority.rootPem), (socket) => {
    identities.push(peerIdentity(socket))
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.write('welcome')
  })
  server.on('tlsClientError', () => undefined)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  port = (server.address() as AddressInfo).port
}
async function close() {
  for (const socket of sockets) socket.destroy()
  sockets.clear()
  server.close()
  await once(server, 'close')
}

/** Connects and waits for the server's first word: in TLS 1.3 a refused client learns of it only then. */
function tryConnection(
  options: ConnectionOptions,
): Promise<{ outcome: string; session: Buffer | undefined; reused: boolean }> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port, ...options })
    let session: Buffer | undefined
    const end = (outcome: string) => {
      resolve({ outcome, session, reused: socket.isSessionReused() })
      socket.destroy()
    }
    socket.on('session', (ticket: Buffer) => {
      session = ticket
    })
    socket.once('data', () => setTimeout(() => end('welcome'), 50))
    socket.once('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message))
    socket.once('close', () => end('closed'))
  })
}
const dial = (credentials: Credentials, changed: ConnectionOptions = {}) =>
  tryConnection({
    ...controllerFacingTlsOptions(credentials, authority.rootPem, authority.serverName),
    ...changed,
  })

test('an agent with a certificate of its fleet is let in and known by it', async () => {
  expect((await dial(agentCredentials())).outcome).toBe('welcome')
  expect(identities).toMatchObject([{ ok: true, identity: { agentId } }])
})

test('a client without a certificate is refused', async () => {
  const {
    key: _key,
    cert: _cert,
    ...bare
  } = controllerFacingTlsOptions(agentCredentials(), authority.rootPem, authority.serverName)
  expect((await tryConnection(bare)).outcome).not.toBe('welcome')
  expect(identities).toEqual([])
})

test('a client that speaks TLS 1.2 is refused', async () => {
  const { outcome } = await dial(agentCredentials(), { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' })
  expect(outcome).toMatch(/PROTOCOL_VERSION/)
  expect(identities).toEqual([])
})

test('an agent of another fleet is refused', async () => {
  expect((await dial(agentCredentials(stranger))).outcome).not.toBe('welcome')
  expect(identities).toEqual([])
})

test("the controller's own certificate does not make an agent", async () => {
  expect((await dial(authority.serverCredentials())).outcome).not.toBe('welcome')
  expect(identities).toEqual([])
})

test('an expired certificate is refused', async () => {
  const past = await openAuthority(join(folder, 'ours'), 'a', () => Date.now() - 31 * dayMs)
  if (!past.ok) throw new Error(past.error.reason)
  expect((await dial(agentCredentials(past.value))).outcome).not.toBe('welcome')
  expect(identities).toEqual([])
})

/** A certificate as somebody with an issuer's key could make it, with any names and purposes. */
function forgeCredentials(
  issuer: OnlineKeys['agentsIssuer'],
  names: readonly { type: number; value: string }[],
  purpose: 'clientAuth' | 'serverAuth',
): Credentials {
  const pair = forge.pki.rsa.generateKeyPair(2_048)
  const certificate = forge.pki.createCertificate()
  certificate.publicKey = pair.publicKey
  certificate.serialNumber = '0102030405'
  certificate.validity.notBefore = new Date(Date.now() - dayMs)
  certificate.validity.notAfter = new Date(Date.now() + dayMs)
  certificate.setSubject([{ name: 'commonName', value: agentId }])
  certificate.setIssuer(forge.pki.certificateFromPem(issuer.certificate.toString()).subject.attributes)
  certificate.setExtensions([
    { name: 'basicConstraints', cA: false },
    { name: 'keyUsage', digitalSignature: true },
    { name: 'extKeyUsage', [purpose]: true },
    { name: 'subjectAltName', altNames: [...names] },
  ])
  certificate.sign(forge.pki.privateKeyFromPem(pkcs1Of(issuer)), forge.md.sha256.create())
  return {
    keyPem: forge.pki.privateKeyToPem(pair.privateKey),
    certificateChainPem: forge.pki.certificateToPem(certificate) + issuer.certificate.toString(),
  }
}
const pkcs1Of = ({ key }: OnlineKeys['agentsIssuer']) =>
  key.export({ format: 'pem', type: 'pkcs1' }).toString()
const urn = (id: string) => ({ type: 6, value: `urn:agent:${id}` })

test('a certificate with one name made with the stolen key of the agents issuer shows that the forgery works', async () => {
  expect((await dial(forgeCredentials(keys.agentsIssuer, [urn(agentId)], 'clientAuth'))).outcome).toBe(
    'welcome',
  )
  expect(identities).toMatchObject([{ ok: true, identity: { agentId } }])
})

test.each([
  ['two agents', [urn(agentId), urn('cd'.repeat(16))]],
  ['an agent and a host name', [urn(agentId), { type: 2, value: 'host' }]],
  [
    'a name with another inside',
    [{ type: 6, value: `urn:agent:${agentId}, URI:urn:agent:${'cd'.repeat(16)}` }],
  ],
  ['no agent', [{ type: 2, value: 'host' }]],
  ['an agent in capitals', [urn('AB'.repeat(16))]],
  ['a longer id', [urn(`${agentId}0`)]],
])('a certificate that names %s is nobody', async (_, names) => {
  await dial(forgeCredentials(keys.agentsIssuer, names, 'clientAuth'))
  expect(identities).toMatchObject([{ ok: false }])
})

test('the servers issuer cannot make agents, even with the purpose written in', async () => {
  const credentials = forgeCredentials(keys.serversIssuer, [urn(agentId)], 'clientAuth')
  expect((await dial(credentials)).outcome).not.toBe('welcome')
  expect(identities).toEqual([])
})

test('the agents issuer cannot make controllers', async () => {
  await close()
  const names = [{ type: 2, value: authority.serverName }]
  await listen(forgeCredentials(keys.agentsIssuer, names, 'serverAuth'))
  expect((await dial(agentCredentials())).outcome).toMatch(/PURPOSE|CA/)
})

test('a controller of another fleet, or under another name, is refused by the agent', async () => {
  const credentials = agentCredentials()
  const foreign = controllerFacingTlsOptions(credentials, stranger.rootPem, authority.serverName)
  expect((await tryConnection(foreign)).outcome).not.toBe('welcome')
  const renamed = controllerFacingTlsOptions(credentials, authority.rootPem, stranger.serverName)
  expect((await tryConnection(renamed)).outcome).not.toBe('welcome')
})

test('NODE_TLS_REJECT_UNAUTHORIZED=0 wins on neither side', async () => {
  process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0'
  try {
    const foreign = controllerFacingTlsOptions(agentCredentials(), stranger.rootPem, authority.serverName)
    expect((await tryConnection(foreign)).outcome).not.toBe('welcome')
    await close()
    await listen(authority.serverCredentials())
    expect((await dial(agentCredentials(stranger))).outcome).not.toBe('welcome')
    expect(identities).toEqual([])
  } finally {
    delete process.env['NODE_TLS_REJECT_UNAUTHORIZED']
  }
})

test('a session is never resumed: every connection proves the key anew', async () => {
  const credentials = agentCredentials()
  const first = await dial(credentials)
  expect(first.outcome).toBe('welcome')
  const second = await dial(credentials, first.session ? { session: first.session } : {})
  expect(second).toMatchObject({ outcome: 'welcome', reused: false })
  expect(identities.length).toBe(2)
})

test('a server certificate exchanged while listening serves the next connection', async () => {
  let nowMs = Date.now() - 20 * dayMs
  const opened = await openAuthority(join(folder, 'ours'), 'a', () => nowMs)
  if (!opened.ok) throw new Error(opened.error.reason)
  const before = opened.value.serverCredentials()
  nowMs += 20 * dayMs
  const after = opened.value.serverCredentials()
  expect(after.certificateChainPem).not.toBe(before.certificateChainPem)
  server.setSecureContext(agentFacingTlsOptions(after, authority.rootPem))
  expect((await dial(agentCredentials())).outcome).toBe('welcome')
  const { outcome } = await dial(agentCredentials(), { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' })
  expect(outcome).toMatch(/PROTOCOL_VERSION/)
  expect((await dial(agentCredentials(stranger))).outcome).not.toBe('welcome')
})
