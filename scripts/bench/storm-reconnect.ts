/**
 * A controller that dies with 2,000 agents connected and events on the way, and starts again: how long until all
 * are back, with the product's own back-off, how much memory it takes, and whether anything was lost.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type PreparedController, prepareController, startController } from '../setup/deployment.ts'
import type { Program } from '../setup/program.ts'
import { awaitLook } from './await-look.ts'
import type { Bench } from './report.ts'
import { enrolFleet } from './simulate/enrol-fleet.ts'
import { type SimulatedFleet, startSimulatedFleet } from './simulate/fleet.ts'
import { compareStored } from './simulate/stored.ts'
import { residentBytes } from './usage.ts'

const AGENTS = 2_000
const BATCHES_PER_AGENT = 10
const ROWS_PER_BATCH = 20
/** While the controller dies. */
const ROWS_PER_SECOND = 10_000
const CONNECT_WAIT_MS = 180_000
const BACK_WAIT_MS = 300_000
const DRAIN_WAIT_MS = 120_000
const LOOK_MS = 100

export const stormReconnectBench: Bench = {
  name: 'storm-reconnect',
  summary: '2,000 agents lose their controller at once: until all are back, memory, events lost',
  async run(context) {
    const prepared = await prepareController({ ...context, operators: ['bench'] })
    const gatewayUrl = `wss://127.0.0.1:${prepared.ports.gateway}`
    context.say(`enrolling ${AGENTS} made-up hosts ...`)
    const fleet = await enrolFleet(prepared.environment, gatewayUrl, AGENTS)
    const simulated = startSimulatedFleet()
    try {
      const made = await simulated.ask({
        kind: 'prepare',
        fleet,
        batches: BATCHES_PER_AGENT,
        rowsPerBatch: ROWS_PER_BATCH,
        inFlightMax: 4,
      })
      const storm = await restartUnderLoad(context.say, prepared, simulated)
      const { streams } = await simulated.ask({ kind: 'acknowledged' })
      const stored = compareStored(`${prepared.folders.controller}/events`, fleet.members, streams)
      return {
        figures: {
          reconnect_2000_s: storm.backSeconds,
          controller_rss_mb: storm.peakMegabytes,
          lost: stored.lost + (made.rows - storm.rowsAcknowledged),
          duplicates: stored.duplicates,
          controller_start_s: storm.startSeconds,
          settled_rss_mb: storm.settledMegabytes,
          failed_attempts: storm.failedAttempts,
        },
        notes: [
          'reconnect_2000_s: from kill -9 of the controller to the welcome of the last agent, its start included; full TLS 1.3 handshakes with client certificates, none resumed',
          `controller_rss_mb: the highest while they came back; ${made.rows} events, ${ROWS_PER_SECOND} a second on their way when it died; lost counts those that were made and never acknowledged, too`,
          `the fleet is one process on the same cores; why its attempts failed: ${JSON.stringify(storm.reasons)}`,
        ],
      }
    } finally {
      await simulated.stop()
    }
  },
}

interface Storm {
  readonly backSeconds: number
  readonly startSeconds: number
  readonly peakMegabytes: number
  readonly settledMegabytes: number
  readonly rowsAcknowledged: number
  readonly failedAttempts: number
  readonly reasons: Readonly<Record<string, number>>
}

async function restartUnderLoad(
  say: (line: string) => void,
  prepared: PreparedController,
  simulated: SimulatedFleet,
): Promise<Storm> {
  const { folders, ports } = prepared
  let controller: Program | null = await startController(folders, ports, {})
  try {
    say('connecting ...')
    await simulated.ask({ kind: 'connect' })
    const all = (look: { readonly connected: number }) => look.connected === AGENTS
    await awaitLook(simulated, CONNECT_WAIT_MS, 'all agents connected', all)
    await simulated.ask({ kind: 'send', rowsPerSecond: ROWS_PER_SECOND })
    await awaitLook(
      simulated,
      DRAIN_WAIT_MS,
      'events flow',
      (look) => look.rowsAcknowledged > ROWS_PER_SECOND,
    )

    say('kill -9, and a new start ...')
    const diedMs = performance.now()
    const before = await simulated.ask({ kind: 'look' })
    controller.kill('SIGKILL')
    await controller.exited
    controller = await startController(folders, ports, {})
    const startSeconds = (performance.now() - diedMs) / 1_000
    const { pid } = controller
    let peakMegabytes = 0
    const back = await awaitLook(simulated, BACK_WAIT_MS, 'all agents are back', (look) => {
      peakMegabytes = Math.max(peakMegabytes, residentBytes(pid) / 1e6)
      return all(look) && look.welcomes >= before.welcomes + AGENTS
    })
    const backSeconds = (performance.now() - diedMs) / 1_000
    say(`all back after ${backSeconds.toFixed(1)} s`)

    await simulated.ask({ kind: 'send', rowsPerSecond: null })
    const done = await awaitLook(
      simulated,
      DRAIN_WAIT_MS,
      'every batch was answered',
      (look) => look.inFlight === 0 && look.idleAgents === AGENTS,
    )
    await sleep(LOOK_MS)
    const settledMegabytes = residentBytes(pid) / 1e6
    await controller.stop(30_000)
    return {
      backSeconds,
      startSeconds,
      peakMegabytes,
      settledMegabytes,
      rowsAcknowledged: done.rowsStored,
      failedAttempts: Object.values(back.ends).reduce((sum, count) => sum + count, 0) - AGENTS,
      reasons: back.ends,
    }
  } finally {
    await controller?.stop()
  }
}
