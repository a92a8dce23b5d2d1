/** From an event query to the SQL for one file. Columns come from tables here; values are always bound. */
import type { EventQuery } from '../event-store.ts'
import { isCursor } from './event-file.ts'

/** Result rows of one query, at most. */
const QUERY_LIMIT_MAX = 10_000
const CONTAINS_CHARACTERS_MAX = 1_024
const NO_LIMIT = -1
/** Values of one list, at most. */
const LIST_MAX = 1_000

/** What the file says of itself, for leaving it out and for choosing an index. */
export interface FileFacts {
  readonly sealed: boolean
  readonly minTimeMs: number | null
  readonly maxTimeMs: number | null
}

export interface SearchSql {
  readonly sql: string
  readonly values: readonly (string | number)[]
}

type TextCondition = 'entityId' | 'parentEntityId' | 'sha256' | 'destinationAddress' | 'path'

/** In the order of preference as the index to go by: the rarest value first. */
const TEXT_CONDITIONS: readonly {
  readonly field: TextCondition
  readonly column: string
  readonly value: string
  readonly index: string
}[] = [
  { field: 'entityId', column: 'entity_id', value: '?', index: 'event_entity' },
  { field: 'sha256', column: 'sha256', value: 'unhex(?)', index: 'event_sha256' },
  { field: 'parentEntityId', column: 'parent_entity_id', value: '?', index: 'event_parent' },
  { field: 'path', column: 'path', value: '?', index: 'event_path' },
  { field: 'destinationAddress', column: 'destination_ip', value: '?', index: 'event_destination' },
]

/** Conditions that hold when one value of a list fits. */
const LIST_CONDITIONS = [
  { field: 'entityIds', column: 'entity_id', index: 'event_entity' },
  { field: 'parentEntityIds', column: 'parent_entity_id', index: 'event_parent' },
] as const

/** The first thing wrong with a query that the types do not catch, or null. */
export function queryProblem(query: EventQuery): string | null {
  if (!Number.isInteger(query.limit) || query.limit < 1 || query.limit > QUERY_LIMIT_MAX) {
    return `limit is a whole number from 1 to ${QUERY_LIMIT_MAX}`
  }
  if (query.contains !== undefined && query.contains.length > CONTAINS_CHARACTERS_MAX) {
    return `contains has at most ${CONTAINS_CHARACTERS_MAX} characters`
  }
  if (query.after !== undefined && !isCursor(query.after)) return 'after is not a cursor'
  if (query.sha256 !== undefined && !/^[0-9a-f]{64}$/.test(query.sha256)) return 'sha256 is 64 hex digits'
  for (const list of [query.actions, query.entityIds, query.parentEntityIds]) {
    if (list !== undefined && list.length > LIST_MAX) return `a list has at most ${LIST_MAX} values`
  }
  for (const ms of [query.fromMs, query.toMs]) {
    if (ms !== undefined && !Number.isFinite(ms)) return 'times are milliseconds since 1970'
  }
  return null
}

/** True when the file's event times lie outside the query's: nothing in it can match. */
export function isOutside(query: EventQuery, facts: FileFacts): boolean {
  if (!facts.sealed) return false
  if (facts.minTimeMs === null || facts.maxTimeMs === null) return true
  return (
    (query.fromMs !== undefined && facts.maxTimeMs < query.fromMs) ||
    (query.toMs !== undefined && facts.minTimeMs > query.toMs)
  )
}

/**
 * SQL whose rows are ids with where they came from, in the query's order, for all conditions but `contains`, of
 * which it only leaves out whole batches: `payload_holds(payload, payload_bytes, text)`. `within_budget(id)` is
 * called again and again while rows are looked at, and throws when the time is up.
 */
export function planSearch(query: EventQuery, facts: FileFacts, fromId: number | null): SearchSql {
  const descending = query.order === 'descending'
  const index = chooseIndex(query, facts)
  const byBatch = index === null && (query.agentId !== undefined || query.contains !== undefined)
  const way = descending ? 'DESC' : 'ASC'
  // A call per row would cost more than the row; the batches of others that are passed count as well.
  const conditions = [
    '((e.id & 63) <> 0 OR within_budget(e.id))',
    ...(byBatch ? ['within_budget(b.id)'] : []),
  ]
  const values: (string | number)[] = []
  const add = (condition: string, ...bound: (string | number)[]) => {
    conditions.push(condition)
    values.push(...bound)
  }
  for (const { field, column, value } of TEXT_CONDITIONS) {
    const wanted = query[field]
    if (wanted !== undefined) add(`e.${column} = ${value}`, wanted)
  }
  for (const { field, column } of LIST_CONDITIONS) {
    const wanted = query[field]
    if (wanted !== undefined) add(`e.${column} IN (SELECT value FROM json_each(?))`, JSON.stringify(wanted))
  }
  if (query.actions !== undefined) {
    add(
      'e.action IN (SELECT id FROM action WHERE name IN (SELECT value FROM json_each(?)))',
      JSON.stringify(query.actions),
    )
  }
  if (query.agentId !== undefined) {
    add('s.agent = (SELECT id FROM agent WHERE agent_id = ?)', query.agentId)
  }
  if (query.action !== undefined) add('e.action = (SELECT id FROM action WHERE name = ?)', query.action)
  if (query.fromMs !== undefined) add('e.time_ms >= ?', query.fromMs)
  if (query.toMs !== undefined) add('e.time_ms <= ?', query.toMs)
  if (fromId !== null) {
    add(`e.id ${descending ? '<' : '>'} ?`, fromId)
    if (byBatch) add(descending ? 'b.first_event < ?' : 'b.first_event + b.rows - 1 > ?', fromId)
  }
  if (byBatch && query.contains !== undefined)
    add('payload_holds(b.payload, b.payload_bytes, ?)', query.contains)
  // A payload that holds the text says nothing of one row: whoever reads the rows counts those that do.
  values.push(query.contains === undefined ? query.limit : NO_LIMIT)
  // In the order of the loops, which CROSS JOIN fixes: ids ascend with batches, so nothing is sorted.
  const from = byBatch
    ? `batch b CROSS JOIN stream s ON s.id = b.stream CROSS JOIN agent a ON a.id = s.agent
       CROSS JOIN event e NOT INDEXED ON e.id >= b.first_event AND e.id < b.first_event + b.rows`
    : `event e ${index === null ? 'NOT INDEXED' : `INDEXED BY ${index}`}
       CROSS JOIN batch b ON b.id = e.batch CROSS JOIN stream s ON s.id = b.stream
       CROSS JOIN agent a ON a.id = s.agent`
  const sql = `SELECT e.id, e.batch, e.id - b.first_event AS row, b.first_sequence, b.received_ms, s.stream_id, s.class, a.agent_id
    FROM ${from}
    WHERE ${conditions.join(' AND ')}
    ORDER BY ${byBatch ? `b.id ${way}, ` : ''}e.id ${way} LIMIT ?`
  return { sql, values }
}

function chooseIndex(query: EventQuery, facts: FileFacts): string | null {
  const conditions = [...TEXT_CONDITIONS, ...LIST_CONDITIONS]
  return (
    (facts.sealed ? conditions.find(({ field }) => query[field] !== undefined)?.index : undefined) ?? null
  )
}
