/**
 * The last fallback for processes and connections: systeminformation asked once a second. It sees only what
 * lives across two looks; `status` says so.
 */
import { networkConnections, processes, type Systeminformation } from 'systeminformation'
import { runEvery } from '../../../shared/node/loop.ts'
import type { ProcessSnapshot } from '../../platform/linux/proc.ts'
import type { ConnectRecord, ProcessKey, Sensor, SensorRecord } from '../records.ts'

export interface PollingOptions {
  readonly readProcess: (pid: number) => ProcessSnapshot | null
  readonly clock: () => number
  readonly intervalMs?: number
  /** Injected in tests; systeminformation otherwise. */
  readonly listPids?: () => Promise<readonly number[]>
  readonly listConnections?: () => Promise<readonly Connection[]>
}

export type Connection = Pick<
  Systeminformation.NetworkConnectionsData,
  'protocol' | 'localAddress' | 'localPort' | 'peerAddress' | 'peerPort' | 'state' | 'pid'
>

const INTERVAL_MS = 1_000
/** Connections remembered as told; past it the oldest are told again. */
const TOLD_MAX = 16_384

export function createPollingSensor(options: PollingOptions): Sensor {
  const listPids = options.listPids ?? (async () => (await processes()).list.map((entry) => entry.pid))
  const listConnections = options.listConnections ?? networkConnections
  return {
    name: 'polling',
    async run(sink, signal, attached) {
      const known = new Map<number, ProcessKey>()
      let told = new Set<string>()
      let first = true
      await runEvery(options.intervalMs ?? INTERVAL_MS, signal, async () => {
        const [pids, connections] = await Promise.all([listPids(), listConnections()])
        const records: SensorRecord[] = comparePids(pids, known, options, first)
        const seen = new Set<string>()
        const listening = new Set(
          connections.filter((one) => one.state === 'LISTEN').map((one) => one.localPort),
        )
        for (const connection of connections) {
          const key = `${connection.pid} ${connection.localAddress}:${connection.localPort} ${connection.peerAddress}:${connection.peerPort}`
          if (!isOutbound(connection, listening)) continue
          if (seen.size < TOLD_MAX) seen.add(key)
          if (told.has(key) || first) continue
          const record = toRecord(connection, options)
          if (record) records.push(record)
        }
        told = seen
        if (first) attached()
        first = false
        if (records.length > 0) sink(records)
      })
    },
  }
}

/** Starts and ends since the last look. On the first look everything is known and nothing is told. */
function comparePids(
  pids: readonly number[],
  known: Map<number, ProcessKey>,
  options: PollingOptions,
  first: boolean,
): SensorRecord[] {
  const timestampMs = options.clock()
  const records: SensorRecord[] = []
  const present = new Set(pids)
  for (const [pid, key] of known) {
    if (present.has(pid)) continue
    known.delete(pid)
    records.push({ kind: 'exit', timestampMs, process: key, exitCode: null, signal: null })
  }
  for (const pid of present) {
    const before = known.get(pid)
    const snapshot = options.readProcess(pid)
    if (snapshot === null || before?.startTicks === snapshot.process.startTicks) continue
    if (before) records.push({ kind: 'exit', timestampMs, process: before, exitCode: null, signal: null })
    known.set(pid, snapshot.process)
    if (first || snapshot.executable === null) continue
    const parent = options.readProcess(snapshot.parentPid)
    records.push({
      kind: 'exec',
      timestampMs,
      process: snapshot.process,
      parent: parent?.process ?? { pid: snapshot.parentPid, startTicks: 0 },
      userId: snapshot.userId,
      groupId: snapshot.groupId,
      sessionId: snapshot.sessionId,
      executable: snapshot.executable,
      arguments: snapshot.arguments,
      argumentsTruncated: snapshot.argumentsTruncated,
      workingDirectory: snapshot.workingDirectory ?? '/',
      file: snapshot.file,
    })
  }
  return records
}

/** TCP with a peer, whose local port nobody on this host listens on: an accepted connection is not ours. */
function isOutbound(connection: Connection, listening: ReadonlySet<string>): boolean {
  if (!connection.protocol.startsWith('tcp') || connection.state === 'LISTEN') return false
  if (connection.peerPort === '*' || connection.peerPort === '' || connection.peerPort === '0') return false
  return !listening.has(connection.localPort)
}

function toRecord(connection: Connection, options: PollingOptions): ConnectRecord | null {
  const snapshot = connection.pid > 0 ? options.readProcess(connection.pid) : null
  if (snapshot === null) return null
  return {
    kind: 'connect',
    timestampMs: options.clock(),
    process: snapshot.process,
    outcome: connection.state === 'SYN_SENT' ? 'unknown' : 'success',
    sourceAddress: plainAddress(connection.localAddress),
    sourcePort: Number(connection.localPort) || 0,
    destinationAddress: plainAddress(connection.peerAddress),
    destinationPort: Number(connection.peerPort) || 0,
  }
}

/** Without brackets, zone and the IPv4-mapped prefix. */
function plainAddress(address: string): string {
  return address
    .replace(/^\[|\]$/g, '')
    .replace(/%.*$/, '')
    .replace(/^::ffff:(?=\d+\.)/i, '')
}
