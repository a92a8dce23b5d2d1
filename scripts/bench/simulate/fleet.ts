/** A simulated fleet as the bench holds it: a process of its own, told what to do, asked what came of it. */
import { fork } from 'node:child_process'
import { join } from 'node:path'
import type { Fleet } from './enrol-fleet.ts'

export type FleetOrder =
  | {
      readonly kind: 'prepare'
      readonly fleet: Fleet
      /** Batches of each agent, made before anything is sent. */
      readonly batches: number
      readonly rowsPerBatch: number
      readonly inFlightMax: number
    }
  | { readonly kind: 'connect' }
  /** `null`: as fast as the controller answers. */
  | { readonly kind: 'send'; readonly rowsPerSecond: number | null }
  | { readonly kind: 'hold' }
  | { readonly kind: 'look' }
  | { readonly kind: 'acknowledged' }

export interface Look {
  /** Of batches whose acknowledgement came. */
  readonly rowsAcknowledged: number
  /** Up to the watermarks: those that the controller told of at a reconnect as well. */
  readonly rowsStored: number
  /** From sending a batch to its acknowledgement, milliseconds, of batches answered since the last look. */
  readonly latencies: readonly number[]
  readonly connected: number
  readonly welcomes: number
  readonly inFlight: number
  /** Agents that have sent all they have: a measurement with one of them is none. */
  readonly idleAgents: number
  readonly refusals: Readonly<Record<string, number>>
  readonly ends: Readonly<Record<string, number>>
  readonly cpuSeconds: number
  readonly atMs: number
}

interface Answers {
  prepare: { readonly bodyBytes: number; readonly wireBytes: number; readonly rows: number }
  connect: object
  send: object
  hold: object
  look: Look
  /** By agent: sequence acknowledged, by class. */
  acknowledged: { readonly streams: readonly Readonly<Record<number, number>>[] }
}
export type FleetAnswer = Answers[keyof Answers]

export interface SimulatedFleet {
  ask<Kind extends FleetOrder['kind']>(order: Extract<FleetOrder, { kind: Kind }>): Promise<Answers[Kind]>
  stop(): Promise<void>
}

export function startSimulatedFleet(): SimulatedFleet {
  const child = fork(join(import.meta.dirname, 'fleet-process.ts'), [], {
    execArgv: ['--disable-warning=ExperimentalWarning', '--max-old-space-size=3072'],
    serialization: 'advanced',
  })
  const waiting = new Map<number, PromiseWithResolvers<never>>()
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  let lastId = 0
  child.on('message', (message: { id: number; answer?: unknown; failed?: string }) => {
    const asked = waiting.get(message.id)
    waiting.delete(message.id)
    if (message.failed === undefined) asked?.resolve(message.answer as never)
    else asked?.reject(new Error(message.failed))
  })
  child.once('exit', (code) => {
    for (const asked of waiting.values()) asked.reject(new Error(`the simulated fleet ended with ${code}`))
    waiting.clear()
  })
  return {
    ask(order) {
      lastId += 1
      const asked = Promise.withResolvers<never>()
      waiting.set(lastId, asked)
      child.send({ id: lastId, order })
      return asked.promise
    },
    async stop() {
      if (child.connected) child.disconnect()
      const force = setTimeout(() => child.kill('SIGKILL'), 5_000)
      await exited
      clearTimeout(force)
    },
  }
}
