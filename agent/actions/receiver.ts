/**
 * The door for commands: each is verified here against the keyset before anything else, admitted to the
 * journal, and driven through its life. What does not verify is refused and told as tampering.
 */
import type { AgentCommandState } from '../../shared/events/agent-events.ts'
import {
  type VerificationContext,
  type VerificationFailure,
  type VerifiedCommand,
  verifyCommand,
} from '../../shared/node/command-verification.ts'
import type { Logger } from '../../shared/node/logger.ts'
import { runEvery } from '../../shared/node/loop.ts'
import { ACTIONS, Intent, Leaf } from '../../shared/protocol/commands.ts'
import { INTENT_BYTES_MAX } from '../../shared/protocol/limits.ts'
import type { Command } from '../../shared/protocol/messages.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import { type Actions, cut } from './action.ts'
import { createAlerts, createAllowance, type TamperEvent } from './alerts.ts'
import type { ActionStateEvent, Journal, JournalledCommand, OpenCommand } from './journal.ts'
import { createLanes } from './lanes.ts'
import { createLife } from './life.ts'

/** Commands that wait for their turn; more are refused. */
export const WAITING_MAX = 256
const EXCLUSIVE_MAX = 8
const SHARED_MAX = 2
const TELL_INTERVAL_MS = 2_000

/** Keyset, fleet, identity and connection; null while the agent has no keyset. Clock and mark are added here. */
export type ReceiverContext = Omit<VerificationContext, 'nowMs' | 'highest'>

export interface ReceiverOptions {
  readonly verificationContext: () => ReceiverContext | null
  readonly journal: Journal
  readonly actions: Actions
  /** Stores durably before it returns. */
  readonly emit: (event: TamperEvent | ActionStateEvent) => void
  readonly clock: () => number
  readonly logger: Logger
}

export interface Receiver {
  /** Verifies, journals and queues one command. Never throws; every answer is an event. */
  receive(message: Command): void
  /** Drops a command that has not been applied; in any case its present state is told. */
  cancel(commandId: string): void
  /**
   * Takes up what the last run left, then works until `signal` aborts; resolves when nothing runs. Commands
   * that are interrupted stay in the journal for the next start.
   */
  run(signal: AbortSignal): Promise<void>
  /** Resolves when no command runs or can begin. */
  idle(): Promise<void>
}

const leafCheck = compileSchema(Leaf)
const intentCheck = compileSchema(Intent)

export function createReceiver(options: ReceiverOptions): Receiver {
  const { journal, clock, logger } = options
  const life = createLife(options)
  const lanes = createLanes({ exclusiveMax: EXCLUSIVE_MAX, sharedMax: SHARED_MAX })
  const alerts = createAlerts(emitSafely, clock)
  const lateness = createAllowance()
  let stop: AbortSignal | null = null

  function emitSafely(event: TamperEvent | ActionStateEvent): void {
    try {
      options.emit(event)
    } catch (error) {
      logger.error({ error: String(error), event }, 'an alert could not be stored')
    }
  }

  function receive(message: Command): void {
    try {
      const context = options.verificationContext()
      if (!context) {
        refuse(message, { kind: 'keyset', reason: 'this host has no keyset to verify commands with' })
        return
      }
      const nowMs = clock()
      const result = verifyCommand(message, { ...context, nowMs, highest: journal.highest() })
      const forgotten = result.ok ? fromBeforeLoss(result.command) : null
      if (forgotten) refuse(message, forgotten)
      else if (result.ok) admit(result.command, nowMs)
      else if (result.failure.kind !== 'replay' || !repeated(message, { ...context, nowMs })) {
        refuse(message, result.failure)
      }
    } catch (error) {
      // A journal that cannot be written admits nothing: what is not on disk is not executed.
      logger.error(
        { error: error instanceof Error ? error.message : String(error) },
        'a command was not taken',
      )
      alerts.raise(`a command was not taken: ${error instanceof Error ? error.message : String(error)}`)
    }
  }

  /** A genuine command that was delivered again as it was: it is answered, and nothing is executed. */
  function repeated(message: Command, context: Omit<VerificationContext, 'highest'>): boolean {
    const result = verifyCommand(message, { ...context, highest: { epoch: 0, sequence: 0 } })
    if (!result.ok) return false
    const present = journal.present(result.command.commandId)
    if (present?.intentHash !== result.command.intentHash) return false
    repeatSafely(result.command.commandId)
    return true
  }

  /** What a journal that was lost may have executed is not executed again, under whatever new sequence it comes. */
  function fromBeforeLoss({ intent }: VerifiedCommand): VerificationFailure | null {
    const afterMs = journal.signedAfterMs()
    if (intent.notBefore > afterMs) return null
    const reason = `this host lost its journal; commands allowed up to ${new Date(afterMs).toISOString()} must be asked for anew`
    return { kind: 'replay', reason }
  }

  function admit(verified: VerifiedCommand, nowMs: number): void {
    const command = toJournalled(verified, nowMs)
    if (!journal.admit(command, receivedReason(verified))) {
      const present = journal.present(command.commandId)
      if (present?.intentHash === command.intentHash) repeatSafely(command.commandId)
      else alerts.raise(`command id ${command.commandId} came again under another intent: not executed`)
      return
    }
    if (lanes.waiting() >= WAITING_MAX) {
      const reason = `${WAITING_MAX} commands wait on this host already; ask again when they have ended`
      journal.reach(command.commandId, 'refused', reason, { code: 'queueFull' })
    } else if (stop) enqueue({ ...command, state: 'received', applying: false }, stop, life.drive)
  }

  function enqueue(command: OpenCommand, signal: AbortSignal, drive: typeof life.drive): void {
    lanes.add(life.lane(command), () => drive(command, signal))
  }

  function refuse(message: Command, failure: VerificationFailure): void {
    const claim = claimOf(message)
    const named = claim ? `command ${claim.commandId} (${claim.action})` : 'a command that names nothing'
    logger.warn({ kind: failure.kind, command: claim?.commandId }, failure.reason)
    // A genuine command that came too late, because this host was away, is no attack.
    const state: AgentCommandState = failure.kind === 'expired' ? 'expired' : 'refused'
    const told =
      state === 'expired'
        ? lateness.take()
        : alerts.raise(`${named} was refused: ${failure.kind}: ${failure.reason}`)
    if (!told) return
    // The id is only claimed: what the journal says of a command that was verified is not overwritten.
    if (!claim || journal.present(claim.commandId)) return
    emitSafely({
      '@timestamp': new Date(clock()).toISOString(),
      'event.kind': 'event',
      'event.category': 'host',
      'event.type': 'change',
      'event.action': 'action-state',
      'cordon.command.id': claim.commandId,
      'cordon.command.action': claim.action,
      'cordon.command.state': state,
      'event.reason': cut(failure.reason),
      'cordon.command.proof': { code: failure.kind },
    })
  }

  function repeatSafely(commandId: string): void {
    try {
      journal.repeat(commandId)
    } catch (error) {
      logger.error({ error: String(error), command: commandId }, 'a state could not be told again')
    }
  }

  function cancel(commandId: string): void {
    const present = journal.present(commandId)
    if (!present) {
      logger.warn({ command: commandId }, 'asked to cancel a command that never came')
    } else if (present.state === 'received' && !present.applying) {
      journal.reach(commandId, 'refused', 'cancelled before it was applied', { code: 'cancelled' })
    } else {
      repeatSafely(commandId)
    }
  }

  async function run(signal: AbortSignal): Promise<void> {
    stop = signal
    journal.tellUntold()
    for (const command of journal.open()) {
      if (Object.hasOwn(ACTIONS, command.action)) enqueue(command, signal, life.resume)
      else journal.reach(command.commandId, 'unknown', `this version does not know ${command.action}`)
    }
    await runEvery(TELL_INTERVAL_MS, signal, () => {
      journal.tellUntold()
    })
    await lanes.close()
  }

  return { receive, cancel, run, idle: () => lanes.idle() }
}

function toJournalled(
  { intent, leaf, wrapper, ...verified }: VerifiedCommand,
  nowMs: number,
): JournalledCommand {
  return {
    commandId: verified.commandId,
    epoch: wrapper.epoch,
    sequence: wrapper.sequence,
    action: intent.action,
    intentHash: verified.intentHash,
    target: leaf.target,
    args: intent.args,
    facts: {
      class: intent.class,
      intentId: intent.intentId,
      incident: intent.incident,
      reason: intent.reason,
      operators: verified.operators,
      keysetVersion: wrapper.keysetVersion,
      live: verified.live,
    },
    receivedMs: nowMs,
    notBeforeMs: intent.notBefore,
    // A live command is timed from its sending, so that a wrong clock on this host neither ends nor extends it.
    expiresMs: verified.live ? nowMs + (intent.expires - wrapper.issued) : intent.expires,
  }
}

function receivedReason({ intent, operators }: VerifiedCommand): string {
  const by = operators.length === 0 ? 'the controller' : operators.join(', ')
  return `asked by ${by}: ${intent.reason}`
}

/** What an unverified message says it is. */
function claimOf(message: Command): { readonly commandId: string; readonly action: string } | null {
  const leaf = parseStrict(leafCheck, Buffer.from(message.leaf, 'base64').toString('utf8'), 8 * 1024)
  if (!leaf.ok) return null
  const intentText = Buffer.from(message.intent, 'base64').toString('utf8')
  const intent = parseStrict(intentCheck, intentText, INTENT_BYTES_MAX)
  return { commandId: leaf.value.commandId, action: intent.ok ? intent.value.action : 'unknown' }
}
