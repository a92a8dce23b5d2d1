/**
 * The event store that needs nothing installed: SQLite files by hour and rows, a worker thread that writes, one that
 * reads for the consumers, one that answers queries, and one that builds the indexes of closed files. The
 * main thread never waits for SQLite.
 */
import { mkdirSync } from 'node:fs'
import type { CordonEvent } from '../../../shared/events/event.ts'
import type { Logger } from '../../../shared/node/logger.ts'
import { aborted } from '../../../shared/node/loop.ts'
import {
  type AppendResult,
  type EventQuery,
  type EventStore,
  type IncomingBatch,
  QueryTooLong,
  type StoredEvent,
} from '../event-store.ts'
import { cursorOf, type FileHour } from './event-file.ts'
import { queryProblem } from './search-plan.ts'
import type { CommittedBatch, TailSource } from './tail.ts'
import { createWorkerClient, startStoreWorker, type WorkerClient } from './worker-client.ts'
import type { Dropped, PackedResult, PackedRow, WorkerRole } from './worker-protocol.ts'

/** Bytes of rows that wait for the writer; a caller above it is told to come again. */
const WAITING_BYTES_MAX = 64 * 1024 * 1024
const WAITING_QUERIES_MAX = 32
const QUERY_BUDGET_MS = 2_000
const GROUP_MS = 2
const SEALER_IDLE_MS = 60_000

export interface EmbeddedEventStoreOptions {
  /** Made when it does not exist. */
  readonly folder: string
  readonly logger: Logger
  readonly queryBudgetMs?: number
  /** Rows after which the writer begins a new file. */
  readonly fileRowsMax?: number
}

export interface EmbeddedEventStore extends EventStore, TailSource {
  /**
   * As `query`, and says when time or memory ran out first: `complete` false, with what was found. To go on,
   * ask again `after` the last event.
   */
  search(query: EventQuery): Promise<{ readonly events: readonly StoredEvent[]; readonly complete: boolean }>
  /** Removes whole files, but for those that are written or indexed at the moment. */
  drop(hours: readonly FileHour[]): Promise<Dropped>
  /** Resolves after `signal` aborts and everything is closed; rejects when a worker dies. */
  run(signal: AbortSignal): Promise<void>
}

/** Opens the files and starts the workers. Rejects when the folder cannot be used. */
export async function openEmbeddedEventStore(
  options: EmbeddedEventStoreOptions,
): Promise<EmbeddedEventStore> {
  mkdirSync(options.folder, { recursive: true, mode: 0o700 })
  const died = Promise.withResolvers<never>()
  died.promise.catch(() => undefined)
  const sealing = createSealing(() => start('sealer'), options.logger)
  const start = (role: WorkerRole): WorkerClient =>
    createWorkerClient({
      worker: startStoreWorker({
        role,
        folder: options.folder,
        groupMs: GROUP_MS,
        ...(options.fileRowsMax === undefined ? {} : { fileRowsMax: options.fileRowsMax }),
      }),
      logger: options.logger,
      onRolled: (hour) => sealing.add(hour),
      onDied: (cause) => (role === 'sealer' ? undefined : died.reject(cause)),
    })

  // The writer first: it sets corrupt files aside before anything reads.
  const writer = start('writer')
  const { head, unsealed } = await writer.ready
  const reader = start('reader')
  const searcher = start('reader')
  await Promise.all([reader.ready, searcher.ready])
  for (const hour of unsealed) sealing.add(hour)

  const listeners = new Set<(batch: CommittedBatch) => void>()
  let waitingBytes = 0

  const append = async (batch: IncomingBatch): Promise<AppendResult> => {
    if (waitingBytes > WAITING_BYTES_MAX) return { kind: 'failed', cause: new Error('the store is behind') }
    const { rows, notable: _notable, ...fields } = batch
    const bytes = rows.payload.length + rows.columns.length
    waitingBytes += bytes
    try {
      const result = await writer.call('append', { ...fields, ...rows }, [rows.payload.buffer])
      return settle(batch, result, listeners)
    } catch (cause) {
      return { kind: 'failed', cause: cause instanceof Error ? cause : new Error(String(cause)) }
    } finally {
      waitingBytes -= bytes
    }
  }

  const search: EmbeddedEventStore['search'] = async (query) => {
    const problem = queryProblem(query)
    if (problem !== null) throw new RangeError(problem)
    if (searcher.pending() >= WAITING_QUERIES_MAX) throw new Error('too many queries are waiting')
    const budgetMs = options.queryBudgetMs ?? QUERY_BUDGET_MS
    const answer = await searcher.call('search', { query, budgetMs })
    return { events: answer.rows.map(unpack), complete: answer.complete }
  }

  let closed: Promise<void> | null = null
  const close = (): Promise<void> => {
    closed ??= Promise.all([sealing.close(), writer.close(), reader.close(), searcher.close()]).then(
      () => undefined,
    )
    return closed
  }

  return {
    head,
    subscribe: (listener) => {
      listeners.add(listener)
    },
    append,
    search,
    watermarks: (agentId, streamId) => writer.call('watermarks', { agentId, streamId }),
    streams: (agentId) => writer.call('streams', { agentId }),
    readAfter: async (cursor, rowsMax) => (await reader.call('readAfter', { cursor, rowsMax })).map(unpack),
    async query(query) {
      const { events, complete } = await search(query)
      if (!complete) throw new QueryTooLong()
      return events
    },
    counts: () => searcher.call('counts', null),
    async drop(hours) {
      const busy = sealing.busy()
      const dropped = await writer.call('drop', { hours: hours.filter((hour) => !busy.includes(hour)) })
      await Promise.all([reader, searcher].map((each) => each.call('forget', { hours: dropped.hours })))
      return dropped
    },
    close,
    async run(signal) {
      try {
        await Promise.race([aborted(signal), died.promise])
      } finally {
        await close()
      }
    },
  }
}

/** Seals one file after the other, in a worker that ends when there was no work for a while. */
function createSealing(start: () => WorkerClient, logger: Logger) {
  let worker: WorkerClient | null = null
  let idle: NodeJS.Timeout | undefined
  const waiting: FileHour[] = []
  let running: Promise<void> | null = null
  let closing = false

  const end = async (): Promise<void> => {
    const ended = worker
    worker = null
    await ended?.close()
  }

  const drain = async (): Promise<void> => {
    clearTimeout(idle)
    worker ??= start()
    try {
      for (let hour = waiting[0]; hour !== undefined && !closing; hour = waiting[0]) {
        await worker.call('seal', { hour })
        logger.debug({ hour }, 'an event file was sealed')
        waiting.shift()
      }
    } catch (cause) {
      // The file stays readable by its ids; the next start tries again.
      logger.error({ hour: waiting.shift(), error: String(cause) }, 'an event file could not be sealed')
      await end()
    } finally {
      running = null
    }
    idle = setTimeout(() => void end(), SEALER_IDLE_MS).unref()
    if (waiting.length > 0 && !closing) running = drain()
  }

  return {
    add(hour: FileHour): void {
      if (closing || waiting.includes(hour)) return
      waiting.push(hour)
      running ??= drain()
    },
    busy: (): readonly FileHour[] => [...waiting],
    async close(): Promise<void> {
      closing = true
      clearTimeout(idle)
      await running
      clearTimeout(idle)
      await end()
    },
  }
}

function settle(
  batch: IncomingBatch,
  result: PackedResult,
  listeners: ReadonlySet<(batch: CommittedBatch) => void>,
): AppendResult {
  if (result.kind === 'failed') return { kind: 'failed', cause: new Error(result.message) }
  if (result.kind !== 'stored') return result
  const { sequence, duplicates, skipped, hour, lastEvent } = result
  const rows = batch.rows.count
  const firstEvent = lastEvent - rows + 1
  if (rows > duplicates) {
    const committed: CommittedBatch = {
      cursor: cursorOf(hour, lastEvent),
      notable: batch.notable
        .filter(({ row }) => row >= duplicates)
        .map(({ row, event, detections }) => ({
          cursor: cursorOf(hour, firstEvent + row),
          agentId: batch.agentId,
          streamId: batch.streamId,
          class: batch.class,
          sequence: batch.firstSequence + row,
          receivedMs: batch.receivedMs,
          event,
          detections,
        })),
    }
    for (const listener of listeners) listener(committed)
  }
  return { kind: 'stored', sequence, duplicates, skipped, cursor: cursorOf(hour, lastEvent) }
}

function unpack({ body, ...row }: PackedRow): StoredEvent {
  // Validated when it arrived; the hash chain tells when the disk changed it since.
  return { ...row, event: JSON.parse(body) as CordonEvent }
}
