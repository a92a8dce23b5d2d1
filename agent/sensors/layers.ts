/**
 * Which source is in force for processes and for files, and why not a better one. Each chain is tried from its
 * best layer down; a layer that fails while it runs gives way to the next, and the change is told.
 */
import { aborted } from '../../shared/node/loop.ts'
import type { SensorStatus } from '../../shared/protocol/messages.ts'
import type { RecordSink, Sensor } from './records.ts'

export interface Layer {
  readonly name: string
  /** Whether it can work here; the reason is shown by `status`. */
  readonly available:
    | { readonly ok: true; readonly reason: string }
    | { readonly ok: false; readonly reason: string }
  readonly create: () => Sensor
}

/** Layers that tell the same, best first. */
export interface Chain {
  readonly layers: readonly Layer[]
  /** What it tells, others tell in part: the agent goes on when none of its layers works. */
  readonly isOptional: boolean
}

export interface LayerChange {
  readonly name: string
  readonly inForce: boolean
  readonly reason: string
}

export interface Layers {
  /** Runs the best layer of every chain; rejects when a chain that is not optional has none left. */
  run(sink: RecordSink, signal: AbortSignal): Promise<void>
  status(): readonly SensorStatus[]
  /** Every chain that is not optional has a layer in force. */
  complete(): boolean
}

interface LayerState {
  readonly layer: Layer
  inForce: boolean
  reason: string
  seen: number
  lost: number
}

const REASON_CHARACTERS_MAX = 512

export function createLayers(chains: readonly Chain[], changed: (change: LayerChange) => void): Layers {
  const states = chains.map(({ layers }) =>
    layers.map(
      (layer): LayerState => ({ layer, inForce: false, reason: layer.available.reason, seen: 0, lost: 0 }),
    ),
  )
  const isOptional = (at: number) => chains[at]?.isOptional ?? false

  function tell(state: LayerState, inForce: boolean, reason: string): void {
    state.inForce = inForce
    state.reason = reason.slice(0, REASON_CHARACTERS_MAX)
    changed({ name: state.layer.name, inForce, reason: state.reason })
  }

  async function runChain(
    chain: readonly LayerState[],
    isOptional: boolean,
    sink: RecordSink,
    signal: AbortSignal,
  ): Promise<void> {
    const failures: string[] = []
    for (const state of chain) {
      if (!state.layer.available.ok) {
        failures.push(`${state.layer.name}: ${state.reason}`)
        continue
      }
      let ended = false
      const counted: RecordSink = (records) => {
        for (const record of records) {
          if (record.kind === 'loss') state.lost += record.count ?? 1
          else state.seen += 1
        }
        sink(records)
      }
      try {
        const reason = failures.length === 0 ? state.reason : `fallback, because ${failures.join('; ')}`
        await state.layer.create().run(counted, signal, () => {
          // A first look that is over after its layer is, or after the agent was told to stop, attached nothing.
          if (!ended && !signal.aborted) tell(state, true, reason)
        })
        if (signal.aborted) return
        failures.push(`${state.layer.name}: ended unasked`)
      } catch (error) {
        failures.push(`${state.layer.name}: ${error instanceof Error ? error.message : String(error)}`)
      }
      ended = true
      tell(state, false, failures.at(-1) ?? '')
    }
    if (isOptional) return aborted(signal)
    throw new Error(`no sensor is left: ${failures.join('; ')}`)
  }

  return {
    async run(sink, signal) {
      await Promise.all(states.map((chain, at) => runChain(chain, isOptional(at), sink, signal)))
    },
    complete: () => states.every((chain, at) => isOptional(at) || chain.some(({ inForce }) => inForce)),
    status: () =>
      states.flatMap((chain) => {
        const best = chain.findIndex(({ inForce }) => inForce)
        return chain.map(({ layer, inForce, reason, seen, lost }, at) => {
          const standsBy = best >= 0 && at > best && layer.available.ok
          const told = standsBy ? `stands by for ${chain[best]?.layer.name}; ${reason}` : reason
          return { name: layer.name, inForce, reason: told.slice(0, REASON_CHARACTERS_MAX), seen, lost }
        })
      }),
  }
}
