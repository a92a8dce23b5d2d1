import { expect, test, vi } from 'vitest'
import { aborted } from '../../shared/node/loop.ts'
import { type Chain, createLayers, type Layer, type LayerChange } from './layers.ts'
import type { Sensor, SensorRecord } from './records.ts'

const loss: SensorRecord = { kind: 'loss', timestampMs: 1, source: 'test', count: 5 }
const exit: SensorRecord = {
  kind: 'exit',
  timestampMs: 1,
  process: { pid: 1, startTicks: 1 },
  exitCode: 0,
  signal: null,
}

function layer(name: string, run: Sensor['run'], ok = true): Layer {
  return {
    name,
    available: ok ? { ok: true, reason: `${name} works` } : { ok: false, reason: `${name} is missing` },
    create: () => ({ name, run }),
  }
}

/** Chains that must have a layer in force. */
const needed = (...chains: readonly (readonly Layer[])[]): Chain[] =>
  chains.map((layers) => ({ layers, isOptional: false }))

test('the best layer that works is in force, and the status says why not a better one', async () => {
  const changes: LayerChange[] = []
  const stop = new AbortController()
  const records: SensorRecord[] = []
  const layers = createLayers(
    needed([
      layer('kernel', async () => undefined, false),
      layer('polling', (sink, signal, attached) => {
        attached()
        sink([exit, loss])
        return aborted(signal)
      }),
    ]),
    (change) => changes.push(change),
  )
  const running = layers.run((batch) => records.push(...batch), stop.signal)
  expect(layers.status()).toEqual([
    { name: 'kernel', inForce: false, reason: 'kernel is missing', seen: 0, lost: 0 },
    {
      name: 'polling',
      inForce: true,
      reason: 'fallback, because kernel: kernel is missing',
      seen: 1,
      lost: 5,
    },
  ])
  expect(records).toHaveLength(2)
  stop.abort()
  await running
  expect(changes).toHaveLength(1)
})

test('a layer that fails while it runs gives way to the next, and the change is told', async () => {
  const changes: LayerChange[] = []
  const stop = new AbortController()
  let attaching: () => void = () => undefined
  const layers = createLayers(
    needed([
      layer('kernel', async (_sink, _signal, attached) => {
        attached()
        throw new Error('ring gone')
      }),
      layer('polling', async (_, signal, attached) => {
        attaching = attached
        await aborted(signal)
      }),
    ]),
    (change) => changes.push(change),
  )
  const running = layers.run(() => undefined, stop.signal)
  await new Promise((resolve) => setImmediate(resolve))
  // The next one is there, and does not see yet.
  expect(changes.map((change) => [change.name, change.inForce])).toEqual([
    ['kernel', true],
    ['kernel', false],
  ])
  expect(changes[1]?.reason).toContain('ring gone')
  expect(layers.complete()).toBe(false)
  attaching()
  expect(changes.at(-1)).toMatchObject({ name: 'polling', inForce: true })
  expect(layers.complete()).toBe(true)
  stop.abort()
  await running
})

test('a layer that attaches too late is not told in force', async () => {
  const changes: LayerChange[] = []
  const stop = new AbortController()
  const late: (() => void)[] = []
  const layers = createLayers(
    needed([
      layer('kernel', async (_sink, _signal, attached) => {
        late.push(attached)
        throw new Error('ring gone')
      }),
      layer('polling', async (_sink, signal, attached) => {
        late.push(attached)
        await aborted(signal)
      }),
    ]),
    (change) => changes.push(change),
  )
  const running = layers.run(() => undefined, stop.signal)
  await vi.waitFor(() => expect(late).toHaveLength(2))
  late[0]?.()
  stop.abort()
  late[1]?.()
  await running
  expect(changes.map((change) => [change.name, change.inForce])).toEqual([['kernel', false]])
  expect(layers.complete()).toBe(false)
})

test('a chain without a layer left fails by name: no sensor dies in silence', async () => {
  const layers = createLayers(needed([layer('kernel', async () => undefined)]), () => undefined)
  await expect(layers.run(() => undefined, new AbortController().signal)).rejects.toThrow(
    'no sensor is left: kernel: ended unasked',
  )
})

test('a chain that is optional may have no layer left, and keeps nobody from being complete', async () => {
  const changes: LayerChange[] = []
  const stop = new AbortController()
  const fails: Layer = layer('bus', async (_sink, _signal, attached) => {
    attached()
    throw new Error('bus gone')
  })
  const layers = createLayers(
    [
      ...needed([
        layer('kernel', async (_sink, signal, attached) => {
          attached()
          await aborted(signal)
        }),
      ]),
      { layers: [fails], isOptional: true },
    ],
    (change) => changes.push(change),
  )
  const running = layers.run(() => undefined, stop.signal)
  await vi.waitFor(() => expect(changes).toHaveLength(3))
  expect(layers.complete()).toBe(true)
  expect(layers.status().find(({ name }) => name === 'bus')).toMatchObject({
    inForce: false,
    reason: 'bus: bus gone',
  })
  stop.abort()
  await running
})
