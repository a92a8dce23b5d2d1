/** The rows of the journal: the statements that read and write them, and what they are outside of it. */
import type { AgentCommandState } from '../../shared/events/agent-events.ts'
import type { Sqlite } from '../../shared/node/sqlite.ts'
import type { ActionName } from '../../shared/protocol/commands.ts'
import type { Proof } from './action.ts'
import type { ActionStateEvent, JournalledCommand, OpenCommand, StateChange } from './journal.ts'
import type { ReplayMark } from './replay-mark.ts'

interface CommandRow {
  readonly command_id: string
  readonly epoch: number
  readonly sequence: number
  readonly action: ActionName
  readonly intent_hash: string
  readonly target: string
  readonly args: string
  readonly facts: string
  readonly received_ms: number
  readonly expires_ms: number
  readonly state: AgentCommandState
  readonly applying: number
}

interface AppliedRow {
  readonly command_id: string
  readonly args: string
  readonly at_ms: number
  readonly present: AgentCommandState
}

interface ChangeRow {
  readonly number: number
  readonly command_id: string
  readonly action: ActionName
  readonly state: AgentCommandState
  readonly at_ms: number
  readonly reason: string
  readonly proof: string
}

export function prepareJournal(db: Sqlite) {
  const changeColumns = 'c.number, c.command_id, m.action, c.state, c.at_ms, c.reason, c.proof'
  const changes = 'state_change c JOIN command m USING (command_id)'
  const applications = `${changes} WHERE m.action = ? AND c.state = 'applied' ORDER BY c.number DESC LIMIT 1`
  return {
    mark: db.prepare<[], ReplayMark>('SELECT epoch, sequence, not_before_ms AS notBeforeMs FROM replay_mark'),
    signedAfter: db.prepare<[], { signedAfterMs: number }>(
      'SELECT signed_after_ms AS signedAfterMs FROM replay_mark',
    ),
    raiseMark: db.prepare<JournalledCommand>(
      `UPDATE replay_mark SET epoch = :epoch, sequence = :sequence,
         not_before_ms = max(not_before_ms, :notBeforeMs)
       WHERE (epoch, sequence) < (:epoch, :sequence)`,
    ),
    restoreMark: db.prepare<ReplayMark & { signedAfterMs: number }>(
      `UPDATE replay_mark SET epoch = :epoch, sequence = :sequence,
         not_before_ms = max(not_before_ms, :notBeforeMs),
         signed_after_ms = max(signed_after_ms, :signedAfterMs)`,
    ),
    insert: db.prepare<Record<string, unknown>>(
      `INSERT OR IGNORE INTO command (command_id, epoch, sequence, action, intent_hash, target, args, facts,
         received_ms, expires_ms, state)
       VALUES (:commandId, :epoch, :sequence, :action, :intentHash, :target, :args, :facts,
         :receivedMs, :expiresMs, 'received')`,
    ),
    change: db.prepare<[string, string, number, string, string]>(
      'INSERT INTO state_change (command_id, state, at_ms, reason, proof) VALUES (?, ?, ?, ?, ?)',
    ),
    setState: db.prepare<[string, number, string]>(
      'UPDATE command SET state = ?, ended = ? WHERE command_id = ?',
    ),
    markApplying: db.prepare<[string]>('UPDATE command SET applying = 1 WHERE command_id = ?'),
    markTold: db.prepare<[number]>('UPDATE state_change SET told = 1 WHERE number = ?'),
    untold: db.prepare<[], ChangeRow>(
      `SELECT ${changeColumns} FROM ${changes} WHERE c.told = 0 ORDER BY c.number LIMIT 1000`,
    ),
    changeOf: db.prepare<[string, string], ChangeRow>(
      `SELECT ${changeColumns} FROM ${changes} WHERE c.command_id = ? AND c.state = ?`,
    ),
    newest: db.prepare<[string], ChangeRow & { intent_hash: string; applying: number }>(
      `SELECT ${changeColumns}, m.intent_hash, m.applying FROM ${changes}
       WHERE c.command_id = ? ORDER BY c.number DESC LIMIT 1`,
    ),
    open: db.prepare<[], CommandRow>('SELECT * FROM command WHERE ended = 0 ORDER BY epoch, sequence'),
    latest: db.prepare<[number], ChangeRow>(
      `SELECT ${changeColumns} FROM ${changes} ORDER BY c.number DESC LIMIT ?`,
    ),
    latestApplied: db.prepare<[string], AppliedRow>(
      `SELECT command_id, m.args, c.at_ms, m.state AS present FROM ${applications}`,
    ),
    // Replay is refused by the mark, not by the row: forgetting an old command does not make it new again.
    forget: db.prepare<[number]>(
      `DELETE FROM command WHERE ended = 1 AND (epoch, sequence) <= (
         SELECT epoch, sequence FROM command WHERE ended = 1
         ORDER BY epoch DESC, sequence DESC LIMIT 1 OFFSET ?)
       AND command_id NOT IN (SELECT command_id FROM state_change WHERE told = 0)
       AND command_id NOT IN (SELECT command_id FROM ${applications.replace('?', "'setTelemetryLists'")})`,
    ),
  }
}

export function toEvent(row: ChangeRow): ActionStateEvent {
  return {
    '@timestamp': new Date(row.at_ms).toISOString(),
    'event.kind': 'event',
    'event.category': 'host',
    'event.type': 'change',
    'event.action': 'action-state',
    'cordon.command.id': row.command_id,
    'cordon.command.action': row.action,
    'cordon.command.state': row.state,
    'event.reason': row.reason,
    'cordon.command.proof': JSON.parse(row.proof) as Proof,
  }
}

export function toChange(row: ChangeRow): StateChange {
  return {
    commandId: row.command_id,
    state: row.state,
    atMs: row.at_ms,
    reason: row.reason,
    proof: JSON.parse(row.proof) as Proof,
  }
}

export function toOpenCommand(row: CommandRow): OpenCommand {
  return {
    commandId: row.command_id,
    epoch: row.epoch,
    sequence: row.sequence,
    action: row.action,
    intentHash: row.intent_hash,
    target: JSON.parse(row.target),
    args: JSON.parse(row.args),
    facts: JSON.parse(row.facts),
    receivedMs: row.received_ms,
    expiresMs: row.expires_ms,
    state: row.state,
    applying: row.applying === 1,
  }
}
