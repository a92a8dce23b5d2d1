/**
 * The journal of commands: what was verified and every state a command reached, on disk before it takes
 * effect. The invariants held here:
 * - the highest (epoch, sequence) is committed with the command, before anything is executed;
 * - a command id is admitted once; after that it only ever answers with its state;
 * - a state is committed together with its event, which stays marked as untold until `emit` returned: a crash
 *   in between tells it again, and the controller knows it by (command id, state).
 */
import type { AgentCommandState, EventOf } from '../../shared/events/event.ts'
import type { Logger } from '../../shared/node/logger.ts'
import { openSqlite, type Sqlite } from '../../shared/node/sqlite.ts'
import type { ActionName } from '../../shared/protocol/commands.ts'
import { boundedProof, cut, type Proof } from './action.ts'

const MIGRATIONS = [
  `CREATE TABLE command (
     command_id TEXT PRIMARY KEY,
     epoch INTEGER NOT NULL,
     sequence INTEGER NOT NULL,
     action TEXT NOT NULL,
     intent_hash TEXT NOT NULL,
     target TEXT NOT NULL,
     args TEXT NOT NULL,
     facts TEXT NOT NULL,
     received_ms INTEGER NOT NULL,
     expires_ms INTEGER NOT NULL,
     state TEXT NOT NULL,
     applying INTEGER NOT NULL DEFAULT 0,
     ended INTEGER NOT NULL DEFAULT 0
   ) STRICT;
   CREATE INDEX command_open ON command (ended, epoch, sequence);
   CREATE TABLE state_change (
     number INTEGER PRIMARY KEY AUTOINCREMENT,
     command_id TEXT NOT NULL REFERENCES command (command_id) ON DELETE CASCADE,
     state TEXT NOT NULL,
     at_ms INTEGER NOT NULL,
     reason TEXT NOT NULL,
     proof TEXT NOT NULL,
     told INTEGER NOT NULL DEFAULT 0
   ) STRICT;
   CREATE INDEX state_change_command ON state_change (command_id);
   CREATE INDEX state_change_untold ON state_change (number) WHERE told = 0;
   CREATE TABLE replay_mark (
     one INTEGER PRIMARY KEY CHECK (one = 1),
     epoch INTEGER NOT NULL,
     sequence INTEGER NOT NULL
   ) STRICT;
   INSERT INTO replay_mark VALUES (1, 0, 0);`,
]

const ENDED_MAX = 10_000

/** `unknown` is an end too, though what a probe finds may still follow it at once. */
const END_STATES: ReadonlySet<AgentCommandState> = new Set([
  'done',
  'failed',
  'refused',
  'expired',
  'unknown',
])

/** A command as it was verified. */
export interface JournalledCommand {
  readonly commandId: string
  readonly epoch: number
  readonly sequence: number
  readonly action: ActionName
  readonly intentHash: string
  readonly target: unknown
  readonly args: unknown
  /** Who asked and why, for `status` and the audit: incident, reason, operators, class. */
  readonly facts: unknown
  readonly receivedMs: number
  /** On this host's clock. */
  readonly expiresMs: number
}

export interface OpenCommand extends JournalledCommand {
  readonly state: AgentCommandState
  /** True when the application was begun: the host may have been changed. */
  readonly applying: boolean
}

export interface StateChange {
  readonly commandId: string
  readonly state: AgentCommandState
  readonly atMs: number
  readonly reason: string
  readonly proof: Proof
}

export type ActionStateEvent = EventOf<'action-state'>

export interface JournalOptions {
  readonly path: string
  /** Stores the event durably before it returns; throws when it cannot, and the event is told again later. */
  readonly emit: (event: ActionStateEvent) => void
  readonly clock: () => number
  readonly logger: Pick<Logger, 'error'>
  /** Ended commands kept for answers to repeats and for `status`. */
  readonly endedMax?: number
  readonly nativeBinding?: string
}

export interface Journal extends Disposable {
  /** Highest (epoch, sequence) ever admitted. */
  highest(): { readonly epoch: number; readonly sequence: number }
  /** Commits the replay mark, and the command with its state `received`, at once. False when the id is known. */
  admit(command: JournalledCommand, reason: string): boolean
  /** Committed before the application begins. */
  markApplying(commandId: string): void
  /** Commits the state, then tells it. A state reached twice is committed and told once. */
  reach(commandId: string, state: AgentCommandState, reason: string, proof?: Proof): void
  /** The newest state, null for an unknown command. */
  present(commandId: string): (StateChange & Pick<OpenCommand, 'intentHash' | 'applying' | 'action'>) | null
  /** The proof given with that state, null when it was not reached. */
  proofOf(commandId: string, state: AgentCommandState): Proof | null
  /** Tells the present state once more. */
  repeat(commandId: string): void
  /** Tells what was committed and not told; false when `emit` could not take all of it. */
  tellUntold(): boolean
  /** Commands without an end state, in the order of admission. */
  open(): readonly OpenCommand[]
  /** Newest first, for `status`. */
  latest(limit: number): readonly StateChange[]
}

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

interface ChangeRow {
  readonly number: number
  readonly command_id: string
  readonly action: ActionName
  readonly state: AgentCommandState
  readonly at_ms: number
  readonly reason: string
  readonly proof: string
}

/** Opens or creates the journal. Throws when it was written by a newer Cordon or is not a database. */
export function openJournal(options: JournalOptions): Journal {
  const db = openSqlite({
    path: options.path,
    migrations: MIGRATIONS,
    ...(options.nativeBinding === undefined ? {} : { nativeBinding: options.nativeBinding }),
  })
  const statements = prepare(db)
  let telling = false

  const admitAll = db.transaction((command: JournalledCommand, reason: string): boolean => {
    const inserted = statements.insert.run({
      ...command,
      target: JSON.stringify(command.target),
      args: JSON.stringify(command.args),
      facts: JSON.stringify(command.facts),
    })
    statements.raiseMark.run(command)
    if (inserted.changes === 0) return false
    statements.change.run(command.commandId, 'received', command.receivedMs, cut(reason), '{}')
    statements.forget.run(options.endedMax ?? ENDED_MAX)
    return true
  })

  const reachAll = db.transaction(
    (commandId: string, state: AgentCommandState, reason: string, proof: Proof): void => {
      if (statements.changeOf.get(commandId, state)) return
      statements.setState.run(state, END_STATES.has(state) ? 1 : 0, commandId)
      statements.change.run(
        commandId,
        state,
        options.clock(),
        cut(reason),
        JSON.stringify(boundedProof(proof)),
      )
    },
  )

  function tellUntold(): boolean {
    // An `emit` that comes back here must not tell the same change twice.
    if (telling) return true
    telling = true
    try {
      // In the order of commitment: the first that cannot be told holds back the later ones.
      for (const row of statements.untold.all()) {
        options.emit(toEvent(row))
        statements.markTold.run(row.number)
      }
      return true
    } catch (error) {
      // The state stands on disk, so the action goes on; what is untold is told later.
      options.logger.error({ error: String(error) }, 'a command state could not be told yet')
      return false
    } finally {
      telling = false
    }
  }

  return {
    highest: () => statements.mark.get() ?? { epoch: 0, sequence: 0 },
    admit(command, reason) {
      if (!admitAll.immediate(command, reason)) return false
      tellUntold()
      return true
    },
    markApplying(commandId) {
      statements.markApplying.run(commandId)
    },
    reach(commandId, state, reason, proof = {}) {
      reachAll.immediate(commandId, state, reason, proof)
      tellUntold()
    },
    present(commandId) {
      const row = statements.newest.get(commandId)
      if (!row) return null
      return {
        ...toChange(row),
        action: row.action,
        intentHash: row.intent_hash,
        applying: row.applying === 1,
      }
    },
    proofOf(commandId, state) {
      const row = statements.changeOf.get(commandId, state)
      return row ? (JSON.parse(row.proof) as Proof) : null
    },
    repeat(commandId) {
      const row = statements.newest.get(commandId)
      if (row) options.emit(toEvent(row))
    },
    tellUntold,
    open: () => statements.open.all().map(toOpenCommand),
    latest: (limit) => statements.latest.all(limit).map(toChange),
    [Symbol.dispose]: () => db.close(),
  }
}

function prepare(db: Sqlite) {
  const changeColumns = 'c.number, c.command_id, m.action, c.state, c.at_ms, c.reason, c.proof'
  const changes = 'state_change c JOIN command m USING (command_id)'
  return {
    mark: db.prepare<[], { epoch: number; sequence: number }>('SELECT epoch, sequence FROM replay_mark'),
    raiseMark: db.prepare<JournalledCommand>(
      `UPDATE replay_mark SET epoch = :epoch, sequence = :sequence
       WHERE (epoch, sequence) < (:epoch, :sequence)`,
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
    // Replay is refused by the mark, not by the row: forgetting an old command does not make it new again.
    forget: db.prepare<[number]>(
      `DELETE FROM command WHERE ended = 1 AND (epoch, sequence) <= (
         SELECT epoch, sequence FROM command WHERE ended = 1
         ORDER BY epoch DESC, sequence DESC LIMIT 1 OFFSET ?)
       AND command_id NOT IN (SELECT command_id FROM state_change WHERE told = 0)`,
    ),
  }
}

function toEvent(row: ChangeRow): ActionStateEvent {
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

function toChange(row: ChangeRow): StateChange {
  return {
    commandId: row.command_id,
    state: row.state,
    atMs: row.at_ms,
    reason: row.reason,
    proof: JSON.parse(row.proof) as Proof,
  }
}

function toOpenCommand(row: CommandRow): OpenCommand {
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
