/** A whole controller for tests: the real API on loopback over services in memory. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createSilentLogger } from '../../../shared/node/logger.ts'
import { keyIdOf } from '../../../shared/node/signing.ts'
import type { Incident } from '../../incidents/incident.ts'
import { createOperators, type Operators } from '../../operators/operators.ts'
import type { Role } from '../../operators/role.ts'
import type { SessionKind } from '../../operators/session-store.ts'
import type { EventQuery, StoredEvent } from '../../store/event-store.ts'
import { type ApiOptions, createApi } from '../app.ts'
import type { AuditEntry, Change, Services } from '../services.ts'
import {
  AGENT_ID,
  AT,
  DETECTION,
  EVENTS,
  host,
  INCIDENT,
  OTHER_AGENT_ID,
  PROCESSES,
  TIMELINE,
} from './fixtures.ts'
import { createMemoryActions, type MemoryActions, type MemoryActionsOptions } from './memory-actions.ts'
import { createMemoryEvidence } from './memory-evidence.ts'

const FLEET = '12'.repeat(16)
export const PASSWORD = 'a long enough password'

export interface MemoryController extends AsyncDisposable {
  readonly url: string
  readonly port: number
  readonly folder: string
  readonly operators: Operators
  readonly services: Services
  /** Set to make it a controller that waits for its confirmation. */
  readonly issuing: { refusal: string | null }
  readonly actions: MemoryActions
  readonly actionOptions: MemoryActionsOptions
  readonly audit: AuditEntry[]
  readonly damage: { on: boolean }
  readonly notes: string[]
  readonly events: StoredEvent[]
  readonly queries: EventQuery[]
  readonly clock: { nowMs: number }
  change(change: Change): void
  /** A fresh session of a user with the role. */
  signIn(role: Role, kind?: SessionKind): Promise<{ token: string; csrfToken: string; name: string }>
}

export async function startMemoryController(overrides: Partial<ApiOptions> = {}): Promise<MemoryController> {
  const folder = mkdtempSync(join(tmpdir(), 'cordon-api-'))
  const clock = { nowMs: Date.now() }
  const operators = createOperators({
    path: join(folder, 'operators.db'),
    clock: () => clock.nowMs,
    // The real cost is tested once; here it would only wait.
    passwordCost: 2 ** 10,
  })
  const world = createWorld()
  const stop = new AbortController()
  const api = createApi({
    services: world.services,
    operators,
    publicUrl: 'http://localhost:0',
    logger: createSilentLogger(),
    ...overrides,
  })
  const { url, port, stopped } = await api.listen({ host: '127.0.0.1', port: 0 }, stop.signal)
  return {
    ...world,
    url: url.replace('localhost', '127.0.0.1'),
    port,
    folder,
    operators,
    clock,
    async signIn(role, kind = 'bearer') {
      const name = `${role}-user`
      await operators.createUser(name, role, PASSWORD)
      const outcome = await operators.logIn({ name, password: PASSWORD, address: '192.0.2.1', kind })
      if (!outcome.ok) throw new Error(`no sign-in: ${outcome.error.kind}`)
      return { token: outcome.value.token, csrfToken: outcome.value.csrfToken, name }
    },
    async [Symbol.asyncDispose]() {
      stop.abort()
      await stopped
      operators.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

function createWorld() {
  const hosts = [host(AGENT_ID, 'web-1'), host(OTHER_AGENT_ID, 'db-1')]
  const audit: AuditEntry[] = []
  const notes: string[] = []
  const events = [...EVENTS]
  const queries: EventQuery[] = []
  const listeners = new Set<(change: Change) => void>()
  const incidents = new Map<string, Incident>([[INCIDENT.id, INCIDENT]])
  const actionOptions: MemoryActionsOptions = {
    hosts,
    fleet: FLEET,
    operatorKeys: [],
    signaturesNeeded: 1,
    outcome: () => 'done',
  }
  const actions = createMemoryActions(actionOptions)
  const record: Services['audit']['record'] = (by, action, subject, detail) => {
    audit.push({ at: AT, by, action, subject, detail, hash: '0'.repeat(64) })
  }
  /** The bytes of evidence that is downloaded are not those of its hash. */
  const damage = { on: false }
  const issuing = { refusal: null as string | null }
  const services: Services = {
    issuing: { refusal: () => issuing.refusal },
    actions,
    hosts: {
      list: () => hosts,
      get: (id) => hosts.find(({ agentId }) => agentId === id),
      revoke: (id) => hosts.some(({ agentId }) => agentId === id),
    },
    health: { problems: () => [] },
    standing: {
      contenders: () => [],
      readmit: (_id, bootId) => (bootId === null ? 'readmitted' : 'unknownBoot'),
      renewals: () => [],
      approveRenewal: (id) =>
        id === AGENT_ID ? { ok: true } : { ok: false, reason: 'no renewal of this host waits for approval' },
    },
    breakGlass: {
      show: (agentId) =>
        agentId === AGENT_ID
          ? { code: 'ABCDE-FGHIJ-KLMNO-PQRST-UVWXY-Z', commandId: 'c'.repeat(32), createdAt: AT }
          : undefined,
    },
    enrolment: {
      createToken: () => ({ token: 'id.secret.pin', expiresAt: AT, url: 'https://localhost:8443' }),
    },
    incidents: {
      list: ({ status, limit }) =>
        [...incidents.values()]
          .filter(
            (each) => !status || (status === 'active' ? each.status !== 'closed' : each.status === status),
          )
          .slice(0, limit),
      get: (id) => incidents.get(id),
      detections: () => [DETECTION],
      recentDetections: () => [DETECTION],
      timeline: async () => TIMELINE,
      processTree: async () => PROCESSES,
      childrenOf: async (_agentId, entityId) =>
        PROCESSES.filter(({ parentEntityId }) => parentEntityId === entityId),
      note: (id, by, text) => incidents.has(id) && notes.push(`${by}: ${text}`) > 0,
      close: (id, by, reason) => incidents.has(id) && notes.push(`${by} closed: ${reason}`) > 0,
    },
    events: {
      query: async (query) => {
        queries.push(query)
        const found = events.filter((row) => matches(row, query))
        return (query.order === 'descending' ? found.reverse() : found).slice(0, query.limit)
      },
      at: async (cursor) => events.find((row) => row.cursor === cursor),
    },
    changes: {
      subscribe(listener, signal) {
        listeners.add(listener)
        signal.addEventListener('abort', () => listeners.delete(listener), { once: true })
      },
    },
    evidence: createMemoryEvidence({ record }, damage),
    audit: { record, list: (limit) => audit.slice(-limit) },
    keyset: {
      current: () => ({ version: 1, keyset: keysetText(actionOptions.operatorKeys), rootSignature: 'AAAA' }),
      replace: (keyset) =>
        keyset === 'AAAA'
          ? { ok: true, value: { version: 2 } }
          : { ok: false, error: { kind: 'invalid', reason: 'the root did not sign it' } },
    },
  }
  const change = (told: Change) => {
    for (const listener of listeners) listener(told)
  }
  return { services, issuing, actions, actionOptions, audit, damage, notes, events, queries, change }
}

function matches(row: StoredEvent, query: EventQuery): boolean {
  const event = row.event as unknown as Record<string, unknown>
  const wanted: readonly (readonly [unknown, unknown])[] = [
    [query.agentId, row.agentId],
    [query.action, event['event.action']],
    [query.entityId, event['process.entity_id']],
    [query.path, event['file.path']],
  ]
  const later = query.after === undefined || query.after === '' || row.cursor > query.after
  return later && wanted.every(([asked, has]) => asked === undefined || asked === has)
}

function keysetText(operatorKeys: readonly string[]): string {
  const keyset = {
    v: 1,
    fleet: FLEET,
    version: 1,
    issued: 0,
    expires: Date.parse('2100-01-01'),
    operators: operatorKeys.map((publicKey, index) => ({
      keyId: keyIdOf(publicKey),
      kind: 'ed25519',
      publicKey,
      name: `operator-${index}`,
      classes: ['C'],
    })),
    thresholds: { C: 1, D: 2 },
    controllers: [{ keyId: '0'.repeat(64), publicKey: '0'.repeat(64) }],
  }
  return Buffer.from(JSON.stringify(keyset)).toString('base64')
}
