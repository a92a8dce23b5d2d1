/**
 * Hosts: what each told of itself, and whether it is there. A host is known by its agent's certificate; its
 * name is for people to read and decides nothing.
 */
import type { EventOf } from '../../shared/events/event.ts'
import type { AgentMessage, Inventory } from '../../shared/protocol/messages.ts'
import type { AuditLog, Change, Host, HostService } from '../api/services.ts'
import { whenItCan } from '../state/database-failure.ts'
import type { HostRow } from '../state/hosts-table.ts'
import type { Silence } from '../state/silences-table.ts'
import type { State } from '../state/state.ts'
import { timestamp } from '../state/timestamp.ts'

type Hello = Extract<AgentMessage, { kind: 'hello' }>
type Status = Extract<AgentMessage, { kind: 'status' }>

/** What the certificates' room knows of an agent. */
interface CertificateFacts {
  /** RFC 3339, UTC. */
  readonly expiresAt: string
  /** SHA-256 of the DER SubjectPublicKeyInfo, lower-case hex. */
  readonly keyFingerprint: string
  readonly revoked: boolean
  /** Why the agent is held; null when it is not. */
  readonly heldReason: string | null
}

export interface HostDependencies {
  readonly state: State
  readonly certificateOf: (agentId: string) => CertificateFacts | undefined
  /** Ends the agent's right to connect and its live sockets. False when the agent is not known. */
  readonly revokeCertificate: (agentId: string, by: string, reason: string) => boolean
  readonly audit: AuditLog
  readonly announce: (change: Change) => void
  readonly nowMs: () => number
}

export interface Hosts extends HostService {
  enrolled(agentId: string, inventory: Inventory, by: string): void
  /** After hello; the agent counts as connected until `disconnected`. */
  connected(agentId: string, hello: Hello): void
  disconnected(agentId: string): void
  isConnected(agentId: string): boolean
  /** Agents that were connected once and should be again. */
  expected(): readonly { readonly agentId: string; readonly lastSeenMs: number }[]
  status(agentId: string, status: Status): void
  /** From the event stream: survives a lost hello. */
  agentStarted(agentId: string, event: EventOf<'agent-started'>): void
  /** For texts; the agent id stands in when the host was never heard of. */
  nameOf(agentId: string): string
}

export function createHosts(dependencies: HostDependencies): Hosts {
  const { state, audit, announce, nowMs } = dependencies
  // An agent may be connected twice for a moment, when it reconnects before its old socket is found dead.
  const connections = new Map<string, number>()
  const names = new Map<string, string>()
  const changed = (agentId: string) => state.afterCommit(() => announce({ kind: 'host', id: agentId }))

  const keep = (
    agentId: string,
    inventory: Inventory,
    more: { agentVersion: string | null; bootId: string | null; seen: boolean },
  ) => {
    const row = { agentId, hostName: inventory.hostName, inventory: JSON.stringify(inventory), atMs: nowMs() }
    state.hosts.upsert({ ...row, ...more })
    state.afterCommit(() => names.set(agentId, inventory.hostName))
    changed(agentId)
  }

  const hostOf = (row: HostRow): Host => {
    const certificate = dependencies.certificateOf(row.agent_id)
    const revoked = row.revoked_ms !== null || certificate?.revoked === true
    const isConnected = connections.has(row.agent_id)
    const facts = { revoked, heldReason: certificate?.heldReason ?? null, isConnected }
    const silence = isConnected ? undefined : state.silences.get(row.agent_id)
    const status = row.status === null ? null : (JSON.parse(row.status) as Status)
    return {
      agentId: row.agent_id,
      hostName: row.host_name,
      inventory: JSON.parse(row.inventory) as Inventory,
      agentVersion: row.agent_version,
      ...standingOf(facts, silence, { expiresAt: certificate?.expiresAt, nowMs: nowMs() }),
      enrolledAt: new Date(row.enrolled_ms).toISOString(),
      lastSeenAt: row.last_seen_ms === null ? null : new Date(row.last_seen_ms).toISOString(),
      certificateExpiresAt: certificate?.expiresAt ?? '',
      keyFingerprint: certificate?.keyFingerprint ?? '',
      bootId: row.boot_id,
      sensors: status?.sensors ?? [],
      bufferedRows: status?.bufferedRows ?? 0,
      droppedRows: status?.droppedRows ?? 0,
      // A status of an agent from before it could be isolated tells nothing of it.
      isolation: status?.isolation ?? null,
    }
  }

  return {
    isConnected: (agentId) => connections.has(agentId),
    expected: () =>
      state.hosts.list().flatMap(({ agent_id: agentId, last_seen_ms: lastSeenMs, revoked_ms: revokedMs }) => {
        const certificate = dependencies.certificateOf(agentId)
        const isOut = revokedMs !== null || certificate?.revoked !== false || certificate.heldReason !== null
        return lastSeenMs === null || isOut ? [] : [{ agentId, lastSeenMs }]
      }),
    list: () => state.hosts.list().map(hostOf),
    get(agentId) {
      const row = state.hosts.get(agentId)
      return row && hostOf(row)
    },
    revoke(agentId, by, reason) {
      if (!dependencies.revokeCertificate(agentId, by, reason)) return false
      state.run(() => {
        if (state.hosts.revoked(agentId, nowMs())) audit.record(by, 'host.revoke', agentId, reason)
        changed(agentId)
      })
      return true
    },
    enrolled(agentId, inventory, by) {
      state.run(() => {
        keep(agentId, inventory, { agentVersion: null, bootId: null, seen: false })
        audit.record(by, 'host.enrol', agentId, `The host calls itself ${inventory.hostName}.`)
      })
    },
    connected(agentId, hello) {
      connections.set(agentId, (connections.get(agentId) ?? 0) + 1)
      const { agentVersion, bootId } = hello
      // One that was heard of before may come in while nothing can be written: what it has waits with it.
      const isKept = whenItCan(() =>
        state.run(() => keep(agentId, hello.inventory, { agentVersion, bootId, seen: true })),
      )
      if (!isKept) announce({ kind: 'host', id: agentId })
    },
    disconnected(agentId) {
      const left = (connections.get(agentId) ?? 0) - 1
      if (left > 0) connections.set(agentId, left)
      else connections.delete(agentId)
      // Of use to people alone: a full disk must not keep the rest from being told.
      whenItCan(() => state.hosts.seen(agentId, nowMs()))
      changed(agentId)
    },
    status(agentId, status) {
      whenItCan(() => state.hosts.status(agentId, JSON.stringify(status), nowMs()))
      changed(agentId)
    },
    agentStarted(agentId, event) {
      state.hosts.started(agentId, event['agent.version'], event['host.boot.id'])
      changed(agentId)
    },
    nameOf(agentId) {
      const known = names.get(agentId) ?? state.hosts.get(agentId)?.host_name
      if (known !== undefined) names.set(agentId, known)
      return known ?? agentId
    },
  }
}

/** State and, for a person, what is to be known of it. */
function standingOf(
  facts: { readonly revoked: boolean; readonly heldReason: string | null; readonly isConnected: boolean },
  silence: Silence | undefined,
  certificate: { readonly expiresAt: string | undefined; readonly nowMs: number },
): Pick<Host, 'state' | 'notice'> {
  if (facts.revoked) return { state: 'revoked', notice: null }
  if (facts.heldReason !== null) {
    return { state: 'held', notice: `${facts.heldReason}; nothing of it is stored until one is readmitted` }
  }
  if (facts.isConnected) return { state: 'connected', notice: null }
  const expiresMs = Date.parse(certificate.expiresAt ?? '')
  const expired =
    expiresMs <= certificate.nowMs ? `; its certificate ran out at ${certificate.expiresAt}` : ''
  if (silence?.farewell != null) {
    return { state: 'stopped', notice: `stopped in order at ${timestamp(silence.sinceMs)}${expired}` }
  }
  const since = silence ? `nothing was heard of it since ${timestamp(silence.sinceMs)}` : ''
  return { state: 'silent', notice: `${since}${expired}` || null }
}
