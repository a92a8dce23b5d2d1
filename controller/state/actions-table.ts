/** Actions and their steps. Whoever adds a step names the state it leads to, so both always agree. */
import type { Sqlite } from '../../shared/node/sqlite.ts'
import type { CommandClass } from '../../shared/protocol/commands.ts'
import { type Action, type ActionState, FINAL_STATES } from '../dispatch/action.ts'

/** Steps kept per action, as the schema allows; past it only the state changes. */
const STEPS_MAX = 64
/** Giving back, copying and choosing what is told contain nothing, although operators sign them. */
const CONTAINS = "class <> 'R' AND action NOT IN ('restoreFile', 'collectFile', 'setTelemetryLists')"
/** Containment actions weighed per incident. */
const CONTAINMENT_ACTIONS_MAX = 10_000

export interface ActionRow {
  readonly command_id: string
  readonly intent_id: string
  readonly leaf_index: number
  readonly leaf: Buffer
  readonly agent_id: string
  readonly host_name: string
  readonly action: Action['action']
  readonly class: CommandClass
  /** JSON. */
  readonly target: string
  /** JSON. */
  readonly args: string
  readonly reason: string
  readonly incident: number | null
  readonly requested_by: string
  readonly state: ActionState
  readonly created_ms: number
  readonly expires_ms: number
  readonly deliveries: number
  readonly session_nonce: string | null
  readonly cancel_by: string | null
  readonly cancel_reason: string | null
  readonly agent_ms: number | null
  readonly final: 0 | 1
}

export type ContainmentRow = Pick<
  ActionRow,
  'agent_id' | 'action' | 'target' | 'state' | 'created_ms' | 'agent_ms'
>

type NewAction = Omit<
  ActionRow,
  'leaf' | 'state' | 'deliveries' | 'session_nonce' | 'cancel_by' | 'cancel_reason' | 'agent_ms' | 'final'
> & { readonly leaf: Uint8Array }

export interface StepRow {
  readonly state: ActionState
  readonly at_ms: number
  readonly by: string
  readonly reason: string
  /** JSON. */
  readonly proof: string
}

interface ActionFilter {
  readonly incident?: number
  readonly agentId?: string
  readonly state?: ActionState
  readonly action?: ActionRow['action']
}

export interface ActionsTable {
  get(commandId: string): ActionRow | undefined
  ofIntent(intentId: string): readonly ActionRow[]
  /** Newest first. */
  list(filter: ActionFilter, limit: number): readonly ActionRow[]
  /** Not final, oldest first. */
  openOfAgent(agentId: string): readonly ActionRow[]
  openCount(): number
  countOfIncident(incident: number): number
  /** Actions of an incident that contain or destroy, oldest first. */
  containmentOf(incident: number): readonly ContainmentRow[]
  /** Whether any of them can still take its own course to an end. */
  containmentUnderway(incident: number): boolean
  /** Never sent and past their expiry, oldest first. */
  undeliveredExpired(nowMs: number, limit: number): readonly ActionRow[]
  /** Sent, without any word of the agent, and expired before the given time; oldest first. */
  unanswered(expiredBeforeMs: number, limit: number): readonly ActionRow[]
  insert(row: NewAction): void
  steps(commandId: string): readonly StepRow[]
  step(commandId: string, step: StepRow): void
  delivered(commandId: string, sessionNonce: string): void
  /** Takes the last `delivered` back: the message did not leave. */
  undelivered(commandId: string): void
  agentClock(commandId: string, agentMs: number): void
  cancelRequested(commandId: string, by: string, reason: string): void
}

export function createActionsTable(db: Sqlite): ActionsTable {
  const get = db.prepare<[string], ActionRow>('SELECT * FROM action WHERE command_id = ?')
  const ofIntent = db.prepare<[string], ActionRow>(
    'SELECT * FROM action WHERE intent_id = ? ORDER BY leaf_index',
  )
  const openOfAgent = db.prepare<[string], ActionRow>(
    'SELECT * FROM action WHERE agent_id = ? AND final = 0 ORDER BY created_ms, command_id',
  )
  const openCount = db.prepare<[], { count: number }>('SELECT count(*) AS count FROM action WHERE final = 0')
  const countOfIncident = db.prepare<[number], { count: number }>(
    'SELECT count(*) AS count FROM action WHERE incident = ?',
  )
  const containmentUnderway = db.prepare<[number]>(
    `SELECT 1 FROM action WHERE incident = ? AND final = 0 AND ${CONTAINS} AND state <> 'unknown' LIMIT 1`,
  )
  const containmentOf = db.prepare<[number], ContainmentRow>(
    `SELECT agent_id, action, target, state, created_ms, agent_ms FROM action WHERE incident = ? AND ${CONTAINS}
     ORDER BY created_ms DESC, command_id LIMIT ${CONTAINMENT_ACTIONS_MAX}`,
  )
  const undeliveredExpired = db.prepare<[number, number], ActionRow>(
    `SELECT * FROM action WHERE final = 0 AND expires_ms <= ?
       AND state IN ('requested', 'awaitingApproval', 'queued')
     ORDER BY expires_ms LIMIT ?`,
  )
  const unanswered = db.prepare<[number, number], ActionRow>(
    "SELECT * FROM action WHERE final = 0 AND expires_ms <= ? AND state = 'sent' ORDER BY expires_ms LIMIT ?",
  )
  const insert = db.prepare(
    `INSERT INTO action (command_id, intent_id, leaf_index, leaf, agent_id, host_name, action, class, target,
       args, reason, incident, requested_by, state, created_ms, expires_ms, deliveries, final)
     VALUES (@command_id, @intent_id, @leaf_index, @leaf, @agent_id, @host_name, @action, @class, @target,
       @args, @reason, @incident, @requested_by, 'requested', @created_ms, @expires_ms, 0, 0)`,
  )
  const steps = db.prepare<[string], StepRow>(
    'SELECT state, at_ms, by, reason, proof FROM action_step WHERE command_id = ? ORDER BY number',
  )
  const addStep = db.prepare<StepRow & { command_id: string }>(
    `INSERT INTO action_step (command_id, number, state, at_ms, by, reason, proof)
     SELECT @command_id, count(*) + 1, @state, @at_ms, @by, @reason, @proof
     FROM action_step WHERE command_id = @command_id HAVING count(*) < ${STEPS_MAX}`,
  )
  const setState = db.prepare<[string, number, string]>(
    'UPDATE action SET state = ?, final = ? WHERE command_id = ?',
  )
  const delivered = db.prepare<[string, string]>(
    'UPDATE action SET deliveries = deliveries + 1, session_nonce = ? WHERE command_id = ?',
  )
  const undelivered = db.prepare<[string]>(
    'UPDATE action SET deliveries = deliveries - 1, session_nonce = NULL WHERE command_id = ?',
  )
  const agentClock = db.prepare<[number, string]>('UPDATE action SET agent_ms = ? WHERE command_id = ?')
  const cancelRequested = db.prepare<[string, string, string]>(
    'UPDATE action SET cancel_by = ?, cancel_reason = ? WHERE command_id = ?',
  )
  const list = listStatements(db)
  return {
    get: (commandId) => get.get(commandId),
    ofIntent: (intentId) => ofIntent.all(intentId),
    list: (filter, limit) => list(filter, limit),
    openOfAgent: (agentId) => openOfAgent.all(agentId),
    openCount: () => openCount.get()?.count ?? 0,
    countOfIncident: (incident) => countOfIncident.get(incident)?.count ?? 0,
    containmentOf: (incident) => containmentOf.all(incident).reverse(),
    containmentUnderway: (incident) => containmentUnderway.get(incident) !== undefined,
    undeliveredExpired: (nowMs, limit) => undeliveredExpired.all(nowMs, limit),
    unanswered: (expiredBeforeMs, limit) => unanswered.all(expiredBeforeMs, limit),
    insert: (row) => {
      insert.run(row)
    },
    steps: (commandId) => steps.all(commandId),
    step(commandId, step) {
      addStep.run({ ...step, command_id: commandId })
      setState.run(step.state, FINAL_STATES.has(step.state) ? 1 : 0, commandId)
    },
    delivered: (commandId, sessionNonce) => {
      delivered.run(sessionNonce, commandId)
    },
    undelivered: (commandId) => {
      undelivered.run(commandId)
    },
    agentClock: (commandId, agentMs) => {
      agentClock.run(agentMs, commandId)
    },
    cancelRequested: (commandId, by, reason) => {
      cancelRequested.run(by, reason, commandId)
    },
  }
}

/** One prepared statement per combination of conditions, so that each uses its index. */
function listStatements(db: Sqlite): (filter: ActionFilter, limit: number) => readonly ActionRow[] {
  const conditions = ['incident = @incident', 'agent_id = @agentId', 'state = @state', 'action = @action']
  const statements = Array.from({ length: 16 }, (_, bits) => {
    const where = conditions.filter((_condition, index) => bits & (1 << index)).join(' AND ')
    return db.prepare<ActionFilter & { limit: number }, ActionRow>(
      `SELECT * FROM action ${where && `WHERE ${where}`} ORDER BY created_ms DESC, command_id LIMIT @limit`,
    )
  })
  return (filter, limit) => {
    const bits =
      (filter.incident === undefined ? 0 : 1) |
      (filter.agentId === undefined ? 0 : 2) |
      (filter.state === undefined ? 0 : 4) |
      (filter.action === undefined ? 0 : 8)
    return statements[bits]?.all({ ...filter, limit }) ?? []
  }
}
