/**
 * Where this agent takes files out of their place at the moment: what happens in those folders is its own doing.
 * Sensors that cannot tell who wrote would find the file there again, and open what is being contained.
 */
import type { CordonEvent } from '../../shared/events/event.ts'

export interface Takings {
  /** Told of every step of a command. */
  note(event: CordonEvent): void
  isWithin(path: string): boolean
}

/** As `privateName` in `taking.ts` writes it. */
const privateFolder = /\/\.cordon-([0-9a-f]{32})(?:\/|$)/
/** Sensors that poll tell of it this late. */
const KEPT_MS = 60_000
const COMMANDS_MAX = 1_024

export function createTakings(clock: () => number): Takings {
  /** When each command did something last. A folder of that name counts as the agent's own for a while only. */
  const lastSteps = new Map<string, number>()
  return {
    note(event) {
      if (event['event.action'] !== 'action-state') return
      if (!['quarantineFile', 'restoreFile'].includes(event['cordon.command.action'])) return
      const id = event['cordon.command.id']
      lastSteps.delete(id)
      lastSteps.set(id, clock())
      const oldest = lastSteps.keys().next()
      if (lastSteps.size > COMMANDS_MAX && !oldest.done) lastSteps.delete(oldest.value)
    },
    isWithin(path) {
      if (lastSteps.size === 0) return false
      const id = privateFolder.exec(path)?.[1]
      const last = id === undefined ? undefined : lastSteps.get(id)
      return last !== undefined && Math.abs(clock() - last) < KEPT_MS
    },
  }
}
