/** The two commands about a host's network: cutting it off and letting it go. */
import type { Action } from '../action.ts'
import type { Isolation } from './ports.ts'

/** One thing at a time happens to the network of this host. */
const KEY = 'host:network'
/** The minute in which the controller may confirm, and time to put the rules in force. */
const ISOLATE_TIMEOUT_MS = 3 * 60_000
const RELEASE_TIMEOUT_MS = 60_000

export function createIsolateAction(isolation: Isolation): Action<'isolateHost'> {
  return {
    idempotent: true,
    access: 'exclusive',
    timeoutMs: ISOLATE_TIMEOUT_MS,
    key: () => KEY,
    check: async () => ({ kind: 'ready' }),
    apply: ({ commandId, target, args }, signal) =>
      isolation.isolate({ commandId, leaseMs: args.leaseMs, breakGlassHash: target.breakGlassHash }, signal),
    async probe({ commandId }, applied, signal) {
      const found = await isolation.settled(commandId, signal)
      return { ...found, proof: { ...applied, ...found.proof } }
    },
  }
}

export function createReleaseAction(isolation: Isolation): Action<'releaseHost'> {
  return {
    idempotent: true,
    access: 'exclusive',
    timeoutMs: RELEASE_TIMEOUT_MS,
    key: () => KEY,
    check: async () => ({ kind: 'ready' }),
    apply: ({ commandId }) => isolation.release(`released by command ${commandId}`),
    async probe(_request, applied) {
      const found = await isolation.released()
      return { ...found, proof: { ...applied, ...found.proof } }
    },
  }
}
