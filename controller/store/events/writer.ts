/**
 * Writes batches into the files, exactly once each. Runs in a worker thread of its own; everything here
 * is synchronous, so the watermarks in memory and on disk move together.
 */
import { existsSync, rmSync } from 'node:fs'
import { CHAIN_START, chainOver } from '../../../shared/node/chain.ts'
import { unpackPayload } from '../../../shared/node/payload.ts'
import type { Sqlite } from '../../../shared/node/sqlite.ts'
import type { Cursor, StreamWatermark } from '../event-store.ts'
import {
  cursorOf,
  eventFilePath,
  type FileHour,
  fileHourOf,
  isCorruption,
  isSealed,
  listHours,
  nextPart,
  openEventFile,
  setAside,
} from './event-file.ts'
import { type OpenFile, openForWriting } from './open-file.ts'
import { storedHashAt } from './stored-chain.ts'
import { createStreamTable, type StreamState, type StreamTable } from './stream-table.ts'
import type { Dropped, PackedBatch, PackedResult, WorkerLog } from './worker-protocol.ts'

/** Rows in one transaction, so that no acknowledgement waits for an endless group. */
const GROUP_ROWS_MAX = 20_000
/** Rows of a file, about 60 MB: bounds what has to be walked because it has no indexes yet. */
const FILE_ROWS_MAX = 250_000

export interface WriterOptions {
  readonly folder: string
  readonly log: WorkerLog
  /** After so many rows the next batch begins a new file; 250,000 unless said. */
  readonly fileRowsMax?: number
  /** Called after a file was closed for good. */
  readonly onRolled: (hour: FileHour) => void
}

export interface EventWriter {
  /** Results in the order of the batches; each is on disk when this returns. */
  append(batches: readonly PackedBatch[]): PackedResult[]
  watermarks(agentId: string, streamId: string): readonly StreamWatermark[]
  streams(agentId: string): readonly string[]
  /** Position of the newest stored event. */
  head(): Cursor
  /** Files that are closed and have no indexes yet. */
  unsealed(): readonly FileHour[]
  /** Removes those of the files that are closed. */
  drop(hours: readonly FileHour[]): Dropped
  close(): void
}

export function createEventWriter(options: WriterOptions): EventWriter {
  const { folder, log } = options
  const fileRowsMax = options.fileRowsMax ?? FILE_ROWS_MAX
  let { file, table } = openNewest(options)

  const open = (hour: FileHour): OpenFile => openForWriting({ folder, hour }, () => table)

  const rollTo = (hour: FileHour): OpenFile => {
    const old = file
    if (old) {
      table.roll(old.hour)
      file = null
      old.db.pragma('wal_checkpoint(TRUNCATE)')
      old.db.close()
      options.onRolled(old.hour)
    }
    file = open(hour)
    return file
  }

  /** The file for a batch that arrived at `ms`: never an earlier one than the newest, however clocks jump. */
  const hourFor = (ms: number): FileHour => {
    const hour = fileHourOf(ms)
    if (!file) return hour
    if (hour > file.hour) return hour
    return file.rows() >= fileRowsMax ? nextPart(file.hour) : file.hour
  }

  const storedHash = (into: OpenFile, stream: StreamState, sequence: number) => {
    const here = storedHashAt(into.db, stream.id, sequence)
    if (here.kind !== 'older') return here
    // One older file at most: a hostile agent that replays its whole history must not keep the writer busy.
    if (stream.carriedFile === null || !existsSync(eventFilePath(folder, stream.carriedFile))) return here
    try {
      const older = openEventFile({ folder, hour: stream.carriedFile }, 'read')
      try {
        return storedHashAt(older, stream.id, sequence)
      } finally {
        older.close()
      }
    } catch (error) {
      // Trouble with an older file must not look like trouble with the open one.
      log('warn', 'an older event file could not be read', { hour: stream.carriedFile, error: String(error) })
      return here
    }
  }

  const place = (into: OpenFile, packed: PackedBatch): PackedResult => {
    const stream = table.get(packed.agentId, packed.streamId, packed.class)
    const rows = packed.count
    const last = packed.firstSequence + rows - 1
    const end = stream?.sequence ?? 0
    const stored = (duplicates: number, skipped: number): PackedResult => ({
      kind: 'stored',
      sequence: Math.max(end, last),
      duplicates,
      skipped,
      hour: into.hour,
      lastEvent: into.lastEvent,
    })
    const mismatch: PackedResult = { kind: 'hashMismatch', expectedSequence: end + 1 }

    if (stream && last <= end) {
      const known =
        last === end ? ({ kind: 'known', hash: stream.hash } as const) : storedHash(into, stream, last)
      if (known.kind === 'never') return mismatch
      if (known.kind === 'known' && known.hash.toString('hex') !== packed.lastHash) return mismatch
      return stored(rows, 0)
    }
    const skipped = Math.max(0, packed.firstSequence - end - 1)
    if (skipped > 0 && packed.firstSequence > packed.allowFrom)
      return { kind: 'gap', expectedSequence: end + 1 }
    const duplicates = Math.max(0, end - packed.firstSequence + 1)
    const previous = hashBefore(packed, duplicates)
    // Rows that never came cannot be checked; after them the chain goes on from what the agent says.
    if (skipped === 0 && !previous.equals(stream?.hash ?? CHAIN_START)) return mismatch
    const target = stream ?? table.add(packed.agentId, packed.streamId, packed.class, CHAIN_START)
    if (!target) return { kind: 'failed', message: 'the agent has too many streams' }
    table.advance(target, last, Buffer.from(packed.lastHash, 'hex'), rows - duplicates)
    into.write(packed, duplicates, target, previous)
    return stored(duplicates, skipped)
  }

  const commitGroup = (into: OpenFile, group: readonly PackedBatch[]): PackedResult[] => {
    const before = { lastEvent: into.lastEvent, lastBatch: into.lastBatch }
    try {
      const results = into.db.transaction(() => group.map((packed) => place(into, packed))).immediate()
      table.commit()
      return results
    } catch (error) {
      table.rollback()
      Object.assign(into, before)
      throw error
    }
  }

  const appendGroup = (hour: FileHour, group: readonly PackedBatch[]): PackedResult[] => {
    try {
      const into = file?.hour === hour ? file : rollTo(hour)
      return commitGroup(into, group)
    } catch (error) {
      // One batch that the file does not take must not cost the others of its group.
      if (!isCorruption(error)) {
        return group.length === 1
          ? failAll(group, error, log)
          : group.flatMap((one) => appendGroup(hour, [one]))
      }
    }
    try {
      replaceCorrupt(hour)
      return commitGroup(file ?? rollTo(hour), group)
    } catch (error) {
      return failAll(group, error, log)
    }
  }

  const replaceCorrupt = (hour: FileHour): void => {
    file?.db.close()
    file = null
    if (!existsSync(eventFilePath(folder, hour))) return
    log('error', 'the open event file is corrupt and was set aside', { path: setAside(folder, hour) })
    // Its watermarks are in memory, but the rows are gone: go back to what the files before it say, so that
    // agents send again what they still have.
    const newest = openNewest(options)
    file = newest.file
    table = newest.table
    if (file && file.hour !== hour) rollTo(hour)
  }

  const oldestMs = (): number | null => {
    const [oldest] = listHours(folder)
    if (oldest === undefined) return null
    if (oldest === file?.hour) return firstReceivedMs(file.db)
    try {
      const db = openEventFile({ folder, hour: oldest }, 'read')
      try {
        return firstReceivedMs(db)
      } finally {
        db.close()
      }
    } catch (error) {
      // What was dropped is gone all the same, and has to be told.
      log('warn', 'the oldest event file could not be read', { hour: oldest, error: String(error) })
      return null
    }
  }

  return {
    append(batches) {
      const results: PackedResult[] = []
      let index = 0
      while (index < batches.length) {
        const group: PackedBatch[] = []
        let rows = 0
        let hour: FileHour | null = null
        for (let next = batches[index]; next; next = batches[index]) {
          hour ??= hourFor(next.receivedMs)
          if (rows >= GROUP_ROWS_MAX || hourFor(next.receivedMs) > hour) break
          group.push(next)
          rows += next.count
          index += 1
        }
        if (hour !== null) results.push(...appendGroup(hour, group))
      }
      return results
    },
    watermarks: (agentId, streamId) =>
      table
        .ofAgent(agentId)
        .filter((stream) => stream.streamId === streamId)
        .map((stream) => ({
          class: stream.class,
          sequence: stream.sequence,
          hash: stream.hash.toString('hex'),
        })),
    streams: (agentId) => [...new Set(table.ofAgent(agentId).map((stream) => stream.streamId))],
    head: () => (file ? cursorOf(file.hour, file.lastEvent) : ''),
    unsealed: () =>
      listHours(folder).filter((hour) => hour !== file?.hour && !isSealed({ ...options, hour })),
    drop(hours) {
      const dropped = listHours(folder).filter((hour) => hours.includes(hour) && hour !== file?.hour)
      for (const hour of dropped) {
        const path = eventFilePath(folder, hour)
        for (const suffix of ['', '-wal', '-shm']) rmSync(`${path}${suffix}`, { force: true })
        log('info', 'an event file was removed', { path })
      }
      return { hours: dropped, oldestMs: oldestMs() }
    },
    close() {
      if (!file) return
      file.db.pragma('wal_checkpoint(TRUNCATE)')
      file.db.close()
      file = null
    },
  }
}

/** The chain before the first row that is new: over the rows that were stored before. */
function hashBefore(packed: PackedBatch, duplicates: number): Buffer {
  const start = Buffer.from(packed.previousHash, 'hex')
  if (duplicates === 0) return start
  const { payload, count, payloadBytes } = packed
  const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.length)
  const unpacked = unpackPayload({ bytes, rows: count, payloadBytes })
  if (!unpacked.ok) throw new Error(`a batch that had been checked cannot be read: ${unpacked.reason}`)
  return chainOver(start, unpacked.bodies.slice(0, duplicates))
}

function firstReceivedMs(db: Sqlite): number | null {
  return db.prepare<[], number>('SELECT received_ms FROM batch ORDER BY id LIMIT 1').pluck().get() ?? null
}

function failAll(group: readonly PackedBatch[], error: unknown, log: WorkerLog): PackedResult[] {
  const message = error instanceof Error ? error.message : String(error)
  log('error', 'events could not be stored', { message, batches: group.length })
  return group.map(() => ({ kind: 'failed', message }))
}

/** Opens the newest file that can be read, setting corrupt ones aside. */
function openNewest(options: WriterOptions): { file: OpenFile | null; table: StreamTable } {
  const { folder } = options
  for (const hour of listHours(folder).reverse()) {
    try {
      const older = listHours(folder).filter((other) => other < hour)
      const file = openForWriting({ folder, hour }, () => watermarksOf(options, older))
      try {
        return { file, table: createStreamTable(file.db) }
      } catch (error) {
        file.db.close()
        throw error
      }
    } catch (error) {
      if (!isCorruption(error)) throw error
      options.log('error', 'a corrupt event file was set aside', { path: setAside(folder, hour) })
    }
  }
  return { file: null, table: createStreamTable(null) }
}

/** Watermarks of the newest of these files, for one that a crash left without its header. */
function watermarksOf(options: WriterOptions, hours: readonly FileHour[]): StreamTable {
  const newest = hours.at(-1)
  if (newest === undefined) return createStreamTable(null)
  const db = openEventFile({ ...options, hour: newest }, 'read')
  try {
    const table = createStreamTable(db)
    table.roll(newest)
    return table
  } finally {
    db.close()
  }
}
