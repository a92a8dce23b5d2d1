/**
 * The journal of commands: what was verified and every state a command reached, on disk before it takes
 * effect. The invariants held here:
 * - the highest (epoch, sequence) is committed with the command, before anything is executed;
 * - a command id is admitted once; after that it only ever answers with its state;
 * - the highest (epoch, sequence) also stands in a small file of its own, written before anything is executed:
 *   a journal that is damaged, gone or from before is known by it, and forgets no replay (replay-mark.ts);
 * - a state is committed together with its event, which stays marked as untold until `emit` returned: a crash
 *   in between tells it again, and the controller knows it by (command id, state).
 */
import type { AgentCommandState } from '../../shared/events/agent-events.ts'
import type { EventOf } from '../../shared/events/event.ts'
import type { Logger } from '../../shared/node/logger.ts'
import type { ActionName } from '../../shared/protocol/commands.ts'
import { boundedProof, cut, type Proof } from './action.ts'
import { openJournalFile } from './journal-file.ts'
import { prepareJournal, toChange, toEvent, toOpenCommand } from './journal-rows.ts'
import { isNewer, NO_MARK, openReplayMark } from './replay-mark.ts'

const ENDED_MAX = 10_000

/** `unknown` is an end too, though what a probe finds may still follow it at once. */
const END_STATES: ReadonlySet<AgentCommandState> = new Set([
  'done',
  'failed',
  'refused',
  'expired',
  'unknown',
  'reverted',
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
  /** From when on the operators let it be done, as they signed it. */
  readonly notBeforeMs: number
}

export interface OpenCommand extends Omit<JournalledCommand, 'notBeforeMs'> {
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

/** An application that stands. */
export interface AppliedCommand {
  readonly commandId: string
  readonly args: unknown
  /** When it was applied. */
  readonly atMs: number
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
  /** Told once for each loss of what stood in the journal. */
  readonly lost: (reason: string) => void
}

export interface Journal extends Disposable {
  /** Highest (epoch, sequence) ever admitted. */
  highest(): { readonly epoch: number; readonly sequence: number }
  /**
   * Commands that operators allowed no later than this may have been executed by a journal that was lost, so
   * they are refused. 0: none was lost.
   */
  signedAfterMs(): number
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
  /**
   * The newest application of that action; null when there is none, or when it was taken back or did not hold.
   * The newest of `setTelemetryLists` is never forgotten: it says what may be in force after a restart.
   */
  latestApplied(action: ActionName): AppliedCommand | null
  /** Newest first, for `status`. */
  latest(limit: number): readonly StateChange[]
}

/**
 * Opens or creates the journal. One that cannot be read is set aside, since a host without a journal could not be
 * helped any more. Throws when it was written by a newer Cordon or is in use.
 */
export function openJournal(options: JournalOptions): Journal {
  const { db, damage } = openJournalFile(options)
  const statements = prepareJournal(db)
  const markFile = openReplayMark(`${options.path}.mark`)
  restoreMark()
  let telling = false

  /** The file is never ahead of its journal, unless the journal is not the one that it was written with. */
  function restoreMark(): void {
    const inJournal = statements.mark.get() ?? NO_MARK
    const read = markFile.read()
    const inFile = read.kind === 'mark' ? read.mark : NO_MARK
    const isLost = damage !== null || isNewer(inFile, inJournal)
    if (isLost) {
      // Without the file nothing tells what was executed last: nothing allowed before now is.
      const signedAfterMs = read.kind === 'mark' ? inFile.notBeforeMs : options.clock()
      statements.restoreMark.run({ ...inFile, signedAfterMs })
      const told = damage ?? 'the journal of commands is gone, or one from before is in its place'
      options.lost(`${told}; commands allowed up to ${new Date(signedAfterMs).toISOString()} are refused`)
    } else if (read.kind === 'damaged') {
      options.lost('the file that stands in for a lost journal of commands was damaged and is written anew')
    }
    const mark = statements.mark.get() ?? NO_MARK
    if (read.kind !== 'mark' || isNewer(mark, inFile)) markFile.write(mark)
  }

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
    highest() {
      const { epoch, sequence } = statements.mark.get() ?? NO_MARK
      return { epoch, sequence }
    },
    signedAfterMs: () => statements.signedAfter.get()?.signedAfterMs ?? 0,
    admit(command, reason) {
      const isNew = admitAll.immediate(command, reason)
      // After the commit and before any effect; what a crash leaves out here is written when it is opened again.
      markFile.write(statements.mark.get() ?? NO_MARK)
      if (!isNew) return false
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
    latestApplied(action) {
      const row = statements.latestApplied.get(action)
      if (!row || row.present === 'reverted' || row.present === 'failed') return null
      return { commandId: row.command_id, args: JSON.parse(row.args), atMs: row.at_ms }
    },
    latest: (limit) => statements.latest.all(limit).map(toChange),
    [Symbol.dispose]: () => db.close(),
  }
}
