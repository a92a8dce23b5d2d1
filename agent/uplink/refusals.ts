/**
 * Remembers over connections how often the controller refused batches of a class since it last took one, and
 * decides what becomes of them. Only what is wrong with the batch itself ever costs it: a store that fails is
 * met with patience, or a full disk at the controller would empty every agent's buffer.
 */
import { EVENT_CLASSES, type EventClass } from '../../shared/events/delivery-class.ts'
import type { ControllerMessage } from '../../shared/protocol/messages.ts'

type RefusalCode = Extract<ControllerMessage, { kind: 'batchRefused' }>['code']
type Verdict = 'again' | 'reconnect' | 'setAside'

export interface Refusals {
  strike(eventClass: EventClass, code: RefusalCode, nowMs: number): Verdict
  /** The controller took something of the class. */
  forgive(eventClass: EventClass): void
  /** On the clock of `strike`; 0 when the class does not pause. */
  pausedUntilMs(eventClass: EventClass): number
}

const ATTEMPTS = 3
/** A gap is cleared up by a new hello; after this many connections that did not, the batch is to blame. */
const GAP_CONNECTIONS = 3

export function createRefusals(pauseMs: number): Refusals {
  const strikes = EVENT_CLASSES.map(() => 0)
  const pausedUntil = EVENT_CLASSES.map(() => 0)
  const forgive = (eventClass: EventClass) => {
    strikes[eventClass] = 0
    pausedUntil[eventClass] = 0
  }
  return {
    forgive,
    pausedUntilMs: (eventClass) => pausedUntil[eventClass] ?? 0,
    strike(eventClass, code, nowMs) {
      const count = (strikes[eventClass] ?? 0) + 1
      strikes[eventClass] = count
      pausedUntil[eventClass] = nowMs + pauseMs * 4 ** ((count - 1) % ATTEMPTS)
      if (count % ATTEMPTS !== 0) return 'again'
      if (code === 'storeFailed') return 'reconnect'
      if (code === 'gap' && count < ATTEMPTS * GAP_CONNECTIONS) return 'reconnect'
      forgive(eventClass)
      return 'setAside'
    },
  }
}
