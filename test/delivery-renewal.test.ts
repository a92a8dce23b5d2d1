/** A host that comes back with a certificate that ran out: from the wire to the buffer that is delivered whole. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type EventBuffer, openBuffer } from '../agent/buffer/buffer.ts'
import { execEvent } from '../agent/buffer/testing/sample-events.ts'
import { createExpiredRenewal } from '../agent/identity/expired-renewal.ts'
import { openIdentity } from '../agent/identity/identity.ts'
import { keyToPem, writeIdentity } from '../agent/identity/identity-files.ts'
import { NO_HANDLERS } from '../agent/uplink/testing/no-handlers.ts'
import { createUplink } from '../agent/uplink/uplink.ts'
import {
  sampleHello,
  startTestController,
  type TestController,
} from '../controller/gateway/testing/test-fleet.ts'
import { type Authority, createAuthority, openAuthority } from '../controller/pki/authority.ts'
import { openPkiDatabase } from '../controller/pki/database.ts'
import { startEnrolmentServer } from '../controller/pki/enrolment-server.ts'
import { createExpiredRenewals, type ExpiredRenewals } from '../controller/pki/expired-renewal.ts'
import { createHolds } from '../controller/pki/holds.ts'
import { openKeysetStore } from '../controller/pki/keyset-store.ts'
import { createRegistry, type Registry } from '../controller/pki/registry.ts'
import { createCertificateRequest, generateAgentKey } from '../shared/node/certificate-request.ts'
import { createSilentLogger } from '../shared/node/logger.ts'
import type { Sqlite } from '../shared/node/sqlite.ts'
import { SAMPLE_STATUS } from '../shared/protocol/testing/sample-status.ts'

const DAY_MS = 86_400_000
const AGENT = '0badcafe'.padEnd(32, '1')
const WAIT = { timeout: 20_000, interval: 20 }
const logger = createSilentLogger()
const stop = new AbortController()
let folder: string
let authority: Authority
let database: Sqlite
let registry: Registry
let renewals: ExpiredRenewals
let controller: TestController
let buffer: EventBuffer
let enrolmentPort: number
const running: Promise<unknown>[] = []

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-delivery-renewal-'))
  const pkiFolder = join(folder, 'pki')
  const sizes = { rootKeyBits: 2_048, issuerKeyBits: 2_048, scryptCost: 2 ** 10 }
  // The ceremony was long ago: an issuer from before the certificate that ran out.
  const past = () => Date.now() - 60 * DAY_MS
  const secrets = { passphrase: 'a', rootPassphrase: 'b' }
  const created = await createAuthority(pkiFolder, { ...sizes, ...secrets, clock: past })
  const opened = await openAuthority(pkiFolder, 'a')
  if (!created.ok || !opened.ok) throw new Error('no authority')
  authority = opened.value
  database = openPkiDatabase(join(folder, 'pki.db'))
  registry = createRegistry({
    database,
    clock: Date.now,
    alert: () => undefined,
    holds: createHolds(database, Date.now),
  })
  renewals = createExpiredRenewals({
    database,
    authority,
    registry,
    clock: Date.now,
    asked: () => undefined,
  })
  const never = () => {
    throw new Error('nobody enrols here')
  }
  const server = await startEnrolmentServer(
    {
      host: '127.0.0.1',
      port: 0,
      authority,
      enrolment: { createToken: never, enrol: never, renew: never },
      renewals,
      logger,
      clock: Date.now,
      requestsPerMinuteMax: 10_000,
    },
    stop.signal,
  )
  enrolmentPort = server.port
  running.push(server.stopped)
  controller = await startTestController({
    authority,
    issue: never,
    [Symbol.dispose]: () => undefined,
  })
  writeExpiredIdentity(created.value)
  buffer = openBuffer({
    path: join(folder, 'buffer.db'),
    bytesMax: 32 * 1024 ** 2,
    reservedBytes: 64 * 1024,
    groupMs: 5,
    logger,
  })
}, 60_000)
afterAll(async () => {
  stop.abort()
  await Promise.all(running)
  buffer?.close()
  await controller?.stop()
  database?.close()
  rmSync(folder, { recursive: true, force: true })
})

/** As it was issued 60 days ago, for 30. */
function writeExpiredIdentity(past: Authority): void {
  const key = generateAgentKey()
  const issued = past.issueAgentCertificate(createCertificateRequest(key), AGENT)
  const keysets = openKeysetStore(join(folder, 'pki'), authority)
  if (!issued.ok || !keysets.ok) throw new Error('no certificate or no keyset')
  registry.enter(issued.value, 'default')
  const { keyset, rootSignature } = keysets.value.current()
  mkdirSync(join(folder, 'agent'), { mode: 0o700 })
  writeIdentity(join(folder, 'agent'), {
    file: {
      v: 1,
      agentId: AGENT,
      fleet: authority.fleet,
      serverName: authority.serverName,
      gatewayUrl: `wss://127.0.0.1:${controller.port}`,
      enrolmentUrl: `https://127.0.0.1:${enrolmentPort}`,
      tokenId: '0'.repeat(16),
    },
    rootPem: authority.rootPem,
    keyset: { keyset, rootSignature },
    keyPem: keyToPem(key),
    certificateChainPem: issued.value.certificateChainPem,
  })
}

test('an agent whose certificate ran out waits for approval with its buffer whole, and delivers all of it', async () => {
  const opened = openIdentity(join(folder, 'agent'))
  if (!opened.ok) throw new Error(opened.error.reason)
  const { identity } = opened
  expect(identity.certificateExpiresAtMs()).toBeLessThan(Date.now())
  for (let index = 0; index < 500; index += 1) buffer.add(execEvent(index))
  const uplink = createUplink({
    gatewayUrl: identity.gatewayUrl,
    tlsOptions: () => identity.tlsOptions(),
    buffer,
    helloFacts: () => ({ ...sampleHello(), agentVersion: '0.1.0' }),
    status: () => SAMPLE_STATUS,
    handlers: NO_HANDLERS,
    logger,
    backoffMinMs: 20,
    backoffMaxMs: 600_000,
  })
  const renewal = createExpiredRenewal({
    identity,
    uplink,
    clock: Date.now,
    logger,
    checkIntervalMs: 30,
    backoffMinMs: 10,
    backoffMaxMs: 50,
  })
  running.push(uplink.run(stop.signal), renewal.run(stop.signal))

  await vi.waitFor(() => expect(renewal.state()).toMatch(/^PENDING RENEWAL/), WAIT)
  expect(renewals.pending()).toMatchObject([{ agentId: AGENT }])
  expect(uplink.state().phase).not.toBe('connected')
  for (let index = 500; index < 1_000; index += 1) buffer.add(execEvent(index))
  expect(buffer.stats()).toMatchObject({ bufferedRows: 1_000, droppedRows: 0 })
  expect(controller.log).toEqual([])

  expect(renewals.approve(AGENT).ok).toBe(true)
  await vi.waitFor(() => expect(uplink.state().phase).toBe('connected'), WAIT)
  await vi.waitFor(() => expect(buffer.stats().bufferedRows).toBe(0), WAIT)
  await vi.waitFor(() => expect(renewal.state()).toBeNull(), WAIT)
  const stored = await controller.store.readAfter('', 10_000)
  expect(stored.filter((row) => row.class === 2).map(({ sequence }) => sequence)).toEqual(
    Array.from({ length: 1_000 }, (_, index) => index + 1),
  )
  // What was written outlives a restart, and is a certificate of a month.
  const again = openIdentity(join(folder, 'agent'))
  expect(again.ok && again.identity.certificateExpiresAtMs()).toBeGreaterThan(Date.now() + 29 * DAY_MS)
})
