/**
 * Which source is in force for processes and for files, and why not a better one. Each chain is tried from its
 * best layer down; a layer that fails while it runs gives way to the next, and the change is told.
 */
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

export interface LayerChange {
  readonly name: string
  readonly inForce: boolean
  readonly reason: string
}

export interface Layers {
  /** Runs the best layer of every chain; rejects when a chain has none left. */
  run(sink: RecordSink, signal: AbortSignal): Promise<void>
  status(): readonly SensorStatus[]
  /** Every chain has a layer in force. */
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

export function createLayers(
  chains: readonly (readonly Layer[])[],
  changed: (change: LayerChange) => void,
): Layers {
  const states = chains.map((chain) =>
    chain.map(
      (layer): LayerState => ({ layer, inForce: false, reason: layer.available.reason, seen: 0, lost: 0 }),
    ),
  )

  function tell(state: LayerState, inForce: boolean, reason: string): void {
    state.inForce = inForce
    state.reason = reason.slice(0, REASON_CHARACTERS_MAX)
    changed({ name: state.layer.name, inForce, reason: state.reason })
  }

  async function runChain(
    chain: readonly LayerState[],
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
    throw new Error(`no sensor is left: ${failures.join('; ')}`)
  }

  return {
    async run(sink, signal) {
      await Promise.all(states.map((chain) => runChain(chain, sink, signal)))
    },
    complete: () => states.every((chain) => chain.some(({ inForce }) => inForce)),
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
