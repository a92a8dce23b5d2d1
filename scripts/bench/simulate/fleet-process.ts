/** The process of a simulated fleet: does what the bench tells it over its IPC channel, and answers with counts. */
import { createSilentLogger } from '../../../shared/node/logger.ts'
import type { Fleet } from './enrol-fleet.ts'
import type { FleetAnswer, FleetOrder } from './fleet.ts'
import { prepareFrames } from './frames.ts'
import { createSimulatedAgent, type SimulatedAgent } from './simulated-agent.ts'

const DIALS_PER_TICK = 8
const DIAL_TICK_MS = 25
const PACE_TICK_MS = 10

const stop = new AbortController()
const refusals = new Map<string, number>()
const ends = new Map<string, number>()
let agents: SimulatedAgent[] = []
let latencies: number[] = []
let rowsAcknowledged = 0
let connected = 0
let welcomes = 0
let bodyBytes = 0
let wireBytes = 0
let preparedRows = 0
let pacing: NodeJS.Timeout | null = null
let rowsPerBatch = 0

const count = (into: Map<string, number>, key: string) => into.set(key, (into.get(key) ?? 0) + 1)

function prepare(fleet: Fleet, order: Extract<FleetOrder, { kind: 'prepare' }>): void {
  rowsPerBatch = order.rowsPerBatch
  agents = fleet.members.map((member, number) => {
    const frames = prepareFrames(member.agentId, number, order.batches, order.rowsPerBatch, Date.now())
    for (const frame of frames) {
      bodyBytes += frame.bodyBytes
      wireBytes += frame.bytes.length
      preparedRows += frame.last - frame.first + 1
    }
    return createSimulatedAgent({
      member,
      number,
      frames,
      inFlightMax: order.inFlightMax,
      gatewayUrl: fleet.gatewayUrl,
      rootPem: fleet.rootPem,
      serverName: fleet.serverName,
      onWelcome: () => {
        connected += 1
        welcomes += 1
        wasConnected.add(number)
      },
      onEnd: (end) => {
        if (wasConnected.delete(number)) connected -= 1
        count(ends, end.reason)
      },
      onAcknowledged: (rows, latencyMs) => {
        rowsAcknowledged += rows
        latencies.push(latencyMs)
      },
      onRefused: (reason) => count(refusals, reason),
      logger: createSilentLogger(),
    })
  })
}
const wasConnected = new Set<number>()

/** A fleet that starts by itself does not dial in one moment; a restarted controller is met by all at once. */
async function connectAll(): Promise<void> {
  for (let index = 0; index < agents.length; index += DIALS_PER_TICK) {
    for (const agent of agents.slice(index, index + DIALS_PER_TICK)) void agent.run(stop.signal)
    await new Promise((resolve) => setTimeout(resolve, DIAL_TICK_MS))
  }
}

/** Batches leave evenly over time and agents, whatever was answered. */
function pace(rowsPerSecond: number): void {
  const startedMs = performance.now()
  let released = 0
  pacing = setInterval(() => {
    const due = Math.floor(((performance.now() - startedMs) / 1_000) * (rowsPerSecond / rowsPerBatch))
    for (; released < due; released += 1) agents[released % agents.length]?.allow(1)
  }, PACE_TICK_MS)
}

function hold(): void {
  if (pacing) clearInterval(pacing)
  pacing = null
  for (const agent of agents) agent.hold()
}

const rowsOf = (watermarks: Readonly<Record<number, number>>): number =>
  Object.values(watermarks).reduce((sum, sequence) => sum + sequence, 0)

function answer(order: FleetOrder): FleetAnswer | Promise<FleetAnswer> {
  switch (order.kind) {
    case 'prepare':
      prepare(order.fleet, order)
      return { bodyBytes, wireBytes, rows: preparedRows }
    case 'connect':
      return connectAll().then(() => ({}))
    case 'send':
      if (order.rowsPerSecond === null) for (const agent of agents) agent.allow(Number.POSITIVE_INFINITY)
      else pace(order.rowsPerSecond)
      return {}
    case 'hold':
      hold()
      return {}
    case 'look': {
      const { user, system } = process.cpuUsage()
      const looked = {
        rowsAcknowledged,
        rowsStored: agents.reduce((sum, agent) => sum + rowsOf(agent.acknowledged()), 0),
        latencies,
        connected,
        welcomes,
        inFlight: agents.reduce((sum, agent) => sum + agent.inFlight, 0),
        idleAgents: agents.filter((agent) => agent.framesLeft === 0).length,
        refusals: Object.fromEntries(refusals),
        ends: Object.fromEntries(ends),
        cpuSeconds: (user + system) / 1e6,
        atMs: performance.now(),
      }
      latencies = []
      return looked
    }
    case 'acknowledged':
      return { streams: agents.map((agent) => agent.acknowledged()) }
  }
}

process.on('message', async ({ id, order }: { id: number; order: FleetOrder }) => {
  try {
    process.send?.({ id, answer: await answer(order) })
  } catch (error) {
    process.send?.({ id, failed: error instanceof Error ? error.stack : String(error) })
  }
})
// The bench is gone, so nobody needs a fleet.
process.on('disconnect', () => process.exit(0))
