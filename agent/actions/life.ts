/**
 * Drives one admitted command through its life: received, applied, probed, then done, failed, refused,
 * expired or unknown. Each state is in the journal before the next step is taken.
 */
import type { Logger } from '../../shared/node/logger.ts'
import type { ActionName } from '../../shared/protocol/commands.ts'
import type { Action, ActionRequest, Actions, Proof } from './action.ts'
import type { Journal, OpenCommand } from './journal.ts'

export interface LifeOptions {
  readonly journal: Journal
  readonly actions: Actions
  readonly clock: () => number
  readonly logger: Logger
}

export interface Life {
  /** Takes a command that was just received from check to its end. Never rejects. */
  drive(command: OpenCommand, stop: AbortSignal): Promise<void>
  /** Takes up a command that a stop or crash of the agent interrupted. Never rejects. */
  resume(command: OpenCommand, stop: AbortSignal): Promise<void>
  /** Where and how the command runs. */
  lane(command: OpenCommand): { readonly key: string; readonly access: 'exclusive' | 'shared' }
}

/** One action with the types of its own target and arguments. The schemas were checked on reception. */
interface Bound {
  readonly action: Action<ActionName>
  readonly request: ActionRequest<ActionName>
}

export function createLife({ journal, actions, clock, logger }: LifeOptions): Life {
  const bind = (command: OpenCommand): Bound => ({
    // Target and arguments in the journal are those of this very action, so the pair fits together.
    action: actions[command.action] as unknown as Action<ActionName>,
    request: {
      commandId: command.commandId,
      target: command.target as ActionRequest<ActionName>['target'],
      args: command.args as ActionRequest<ActionName>['args'],
    },
  })

  /** False when the command has no life left: its time is over, or it was cancelled while it waited. */
  function mayBegin(command: OpenCommand): boolean {
    const present = journal.present(command.commandId)
    if (present?.state !== 'received') return false
    if (clock() < command.expiresMs) return true
    journal.reach(command.commandId, 'expired', 'the time to begin ran out before its turn came')
    return false
  }

  async function begin(command: OpenCommand, stop: AbortSignal): Promise<void> {
    const { commandId } = command
    const { action, request } = bind(command)
    if (stop.aborted || !mayBegin(command)) return
    const timeout = AbortSignal.timeout(action.timeoutMs)
    const signal = AbortSignal.any([stop, timeout])
    const check = await action.check(request, signal)
    // The stop of the agent is no answer: the journal keeps the command for the next start.
    if (stop.aborted) return
    if (check.kind === 'refused') journal.reach(commandId, 'refused', check.reason, { code: check.code })
    if (check.kind === 'refused' || !mayBegin(command)) return
    if (check.kind === 'already') {
      journal.reach(commandId, 'applied', check.reason, check.proof)
      return await probe(command, check.proof, stop)
    }
    journal.markApplying(commandId)
    const applied = await action.apply(request, signal)
    switch (applied.kind) {
      case 'refused':
        journal.reach(commandId, 'refused', applied.reason, { code: applied.code })
        break
      case 'failed':
        journal.reach(commandId, 'failed', applied.reason, applied.proof)
        break
      case 'aborted':
        // Stopped with the agent, it is taken up at the next start.
        if (!stop.aborted) journal.reach(commandId, 'failed', `it took longer than ${action.timeoutMs} ms`)
        break
      case 'applied':
        journal.reach(commandId, 'applied', applied.reason, applied.proof)
        await probe(command, applied.proof, stop)
    }
  }

  async function probe(command: OpenCommand, applied: Proof | null, stop: AbortSignal): Promise<void> {
    const { action, request } = bind(command)
    const signal = AbortSignal.any([stop, AbortSignal.timeout(action.timeoutMs)])
    const found = await action.probe(request, applied, signal)
    if (stop.aborted) return
    if (found.kind === 'reverted') {
      journal.reach(command.commandId, 'reverted', found.reason, found.proof)
      return
    }
    journal.reach(command.commandId, 'probed', found.reason, found.proof)
    journal.reach(command.commandId, found.kind === 'proved' ? 'done' : 'failed', found.reason, found.proof)
  }

  /** It may have been applied, in part or wholly: looks first, and applies again only what bears it. */
  async function resumeApplying(command: OpenCommand, stop: AbortSignal): Promise<void> {
    const { commandId } = command
    const { action, request } = bind(command)
    await action.recover?.(request)
    const signal = AbortSignal.any([stop, AbortSignal.timeout(action.timeoutMs)])
    const found = await action.probe(request, null, signal)
    if (stop.aborted) return
    const proof = { ...found.proof, afterRestart: true }
    if (found.kind === 'proved') {
      journal.reach(commandId, 'applied', `the agent was interrupted; ${found.reason}`, proof)
      journal.reach(commandId, 'probed', found.reason, proof)
      journal.reach(commandId, 'done', found.reason, proof)
      return
    }
    if (found.kind === 'reverted') {
      journal.reach(commandId, 'reverted', found.reason, proof)
      return
    }
    const inTime = clock() < command.expiresMs
    if (action.idempotent && inTime) return await begin(command, stop)
    const why = action.idempotent ? 'its time is over' : 'it must not be applied twice'
    journal.reach(commandId, 'unknown', `the agent was interrupted while it was applied, and ${why}`)
    if (found.kind === 'unknown') return
    journal.reach(commandId, 'probed', found.reason, proof)
    journal.reach(commandId, 'failed', found.reason, proof)
  }

  async function resumeCommand(command: OpenCommand, stop: AbortSignal): Promise<void> {
    const { commandId, state } = command
    if (state === 'applied') return await probe(command, journal.proofOf(commandId, 'applied'), stop)
    if (state === 'probed') {
      // The end was one commit away; what was probed then may no longer hold now.
      return await probe(command, journal.proofOf(commandId, 'applied'), stop)
    }
    return command.applying ? await resumeApplying(command, stop) : await begin(command, stop)
  }

  /** A defect in one action ends that command alone, and says so. */
  async function guarded(command: OpenCommand, work: Promise<void>): Promise<void> {
    try {
      await work
    } catch (error) {
      const reason = `the action broke off: ${error instanceof Error ? error.message : String(error)}`
      logger.error({ command: command.commandId, action: command.action, error }, reason)
      try {
        const { action, request } = bind(command)
        await action.recover?.(request)
        journal.reach(command.commandId, 'failed', reason)
      } catch (journalError) {
        logger.error(
          { command: command.commandId, error: journalError },
          'the broken action could not be ended cleanly',
        )
      }
    }
  }

  return {
    drive: (command, stop) => guarded(command, begin(command, stop)),
    resume: (command, stop) => guarded(command, resumeCommand(command, stop)),
    lane(command) {
      const { action, request } = bind(command)
      return { key: action.key(request.target), access: action.access }
    },
  }
}
