/**
 * Where every stream ends, in memory, for the writer alone. Changes of a transaction are noted and taken back
 * when it fails, so that memory never runs ahead of the disk.
 */
import type { EventClass } from '../../../shared/events/delivery-class.ts'
import type { Sqlite } from '../../../shared/node/sqlite.ts'
import type { FileHour } from './event-file.ts'

/** A hostile agent may make up streams; an honest one starts a new one only when its buffer was lost. */
export const STREAMS_PER_AGENT_MAX = 256

export interface StreamState {
  /** Row ids in every file, carried over with the watermark. */
  readonly id: number
  readonly agent: number
  readonly agentId: string
  readonly streamId: string
  readonly class: EventClass
  sequence: number
  hash: Buffer
  /** Rows in the open file. */
  rows: number
  /** Newest earlier file with rows of this stream. */
  carriedFile: FileHour | null
}

export interface StreamTable {
  get(agentId: string, streamId: string, eventClass: EventClass): StreamState | undefined
  ofAgent(agentId: string): readonly StreamState[]
  /** A new stream at sequence 0, or undefined when the agent has too many. */
  add(agentId: string, streamId: string, eventClass: EventClass, hash: Buffer): StreamState | undefined
  advance(stream: StreamState, sequence: number, hash: Buffer, rows: number): void
  /** The transaction is on disk: forget how to go back. */
  commit(): void
  rollback(): void
  /** The open file is full of time: rows count anew, and point back to it. */
  roll(from: FileHour): void
  writeAll(db: Sqlite): void
}

interface StreamRow {
  id: number
  agent: number
  agent_id: string
  stream_id: string
  class: EventClass
  sequence: number
  hash: Buffer
  rows: number
  carried_file: string | null
}

/** Loads the table from the newest readable file, or starts empty. */
export function createStreamTable(db: Sqlite | null): StreamTable {
  const streams = new Map<string, StreamState>()
  const agents = new Map<string, { readonly id: number; readonly streams: StreamState[] }>()
  let undo: (() => void)[] = []
  let lastStream = 0
  let lastAgent = 0

  const keyOf = (agentId: string, streamId: string, eventClass: EventClass) =>
    `${agentId}${streamId}${eventClass}`
  const put = (stream: StreamState): void => {
    streams.set(keyOf(stream.agentId, stream.streamId, stream.class), stream)
    const agent = agents.get(stream.agentId) ?? { id: stream.agent, streams: [] }
    agent.streams.push(stream)
    agents.set(stream.agentId, agent)
    lastStream = Math.max(lastStream, stream.id)
    lastAgent = Math.max(lastAgent, stream.agent)
  }
  for (const row of db ? loadRows(db) : []) {
    put({
      id: row.id,
      agent: row.agent,
      agentId: row.agent_id,
      streamId: row.stream_id,
      class: row.class,
      sequence: row.sequence,
      hash: row.hash,
      rows: row.rows,
      carriedFile: row.carried_file,
    })
  }

  return {
    get: (agentId, streamId, eventClass) => streams.get(keyOf(agentId, streamId, eventClass)),
    ofAgent: (agentId) => agents.get(agentId)?.streams ?? [],
    add(agentId, streamId, eventClass, hash) {
      const agent = agents.get(agentId)
      if (agent && agent.streams.length >= STREAMS_PER_AGENT_MAX) return undefined
      const stream: StreamState = {
        id: lastStream + 1,
        agent: agent?.id ?? lastAgent + 1,
        agentId,
        streamId,
        class: eventClass,
        sequence: 0,
        hash,
        rows: 0,
        carriedFile: null,
      }
      put(stream)
      undo.push(() => {
        streams.delete(keyOf(agentId, streamId, eventClass))
        agents.get(agentId)?.streams.pop()
        if (!agent) agents.delete(agentId)
      })
      return stream
    },
    advance(stream, sequence, hash, rows) {
      const before = { sequence: stream.sequence, hash: stream.hash, rows: stream.rows }
      undo.push(() => Object.assign(stream, before))
      Object.assign(stream, { sequence, hash, rows: stream.rows + rows })
    },
    commit() {
      undo = []
    },
    rollback() {
      for (const step of undo.reverse()) step()
      undo = []
    },
    roll(from) {
      for (const stream of streams.values()) {
        if (stream.rows > 0) stream.carriedFile = from
        stream.rows = 0
      }
    },
    writeAll(into) {
      const insertAgent = into.prepare('INSERT INTO agent (id, agent_id) VALUES (?, ?)')
      for (const [agentId, agent] of agents) insertAgent.run(agent.id, agentId)
      const insertStream = into.prepare(
        `INSERT INTO stream (id, agent, stream_id, class, sequence, hash, carried_file)
         VALUES (?, ?, ?, ?, ?, ?, ?)`,
      )
      for (const stream of streams.values()) {
        insertStream.run(
          stream.id,
          stream.agent,
          stream.streamId,
          stream.class,
          stream.sequence,
          stream.hash,
          stream.carriedFile,
        )
      }
    },
  }
}

function loadRows(db: Sqlite): StreamRow[] {
  return db
    .prepare<[], StreamRow>(
      `SELECT s.id, s.agent, a.agent_id, s.stream_id, s.class, s.sequence, s.hash, s.rows, s.carried_file
       FROM stream s JOIN agent a ON a.id = s.agent ORDER BY s.id`,
    )
    .all()
}
