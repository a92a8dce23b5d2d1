/**
 * How many events the controller takes: 500 made-up agents over mutual TLS, each with a certificate of its own,
 * all shipped indicators on. Counted is what was acknowledged, which is what was committed to disk; the store is
 * read afterwards and held against it.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { prepareController, startController } from '../setup/deployment.ts'
import type { Program } from '../setup/program.ts'
import { awaitLook } from './await-look.ts'
import { type Bench, percentile, rounded } from './report.ts'
import { enrolFleet, type Fleet } from './simulate/enrol-fleet.ts'
import { type SimulatedFleet, startSimulatedFleet } from './simulate/fleet.ts'
import { compareStored, type Stored } from './simulate/stored.ts'
import { cpuSeconds, residentBytes } from './usage.ts'

const AGENTS = 500
const ROWS_PER_BATCH = 100
/** What each agent has to send at most: more than the fastest controller takes in the time. */
const ROWS_PER_AGENT = 9_000
const PACED_ROWS_PER_SECOND = 30_000
const PACED_SECONDS = 10
const WARM_UP_SECONDS = 5
const WINDOW_SECONDS = 4
const WINDOWS = 6
const CONNECT_WAIT_MS = 60_000
const DRAIN_WAIT_MS = 60_000

interface Window {
  readonly rowsPerSecond: number
  readonly cpuSecondsPerMillion: number
  readonly latencies: readonly number[]
}

interface Measured {
  readonly paced: readonly Window[]
  readonly full: readonly Window[]
  readonly residentMegabytes: number
  readonly simulatorCpuSecondsPerMillion: number
  readonly bodyBytes: number
  readonly wireBytes: number
  readonly stored: Stored
}

export const ingestBench: Bench = {
  name: 'ingest',
  summary: 'events a second from 500 agents to disk, CPU and latency; nothing lost, nothing twice',
  async run(context) {
    const prepared = await prepareController({ ...context, operators: ['bench'] })
    const gatewayUrl = `wss://127.0.0.1:${prepared.ports.gateway}`
    context.say(`enrolling ${AGENTS} made-up hosts ...`)
    const fleet = await enrolFleet(prepared.environment, gatewayUrl, AGENTS)
    const simulated = startSimulatedFleet()
    try {
      const controller = await startController(prepared.folders, prepared.ports, {})
      try {
        const measured = await measure(context.say, controller, simulated, fleet, prepared.folders.controller)
        return report(measured)
      } finally {
        await controller.stop()
      }
    } finally {
      await simulated.stop()
    }
  },
}

async function measure(
  say: (line: string) => void,
  controller: Program,
  simulated: SimulatedFleet,
  fleet: Fleet,
  controllerFolder: string,
): Promise<Measured> {
  say(`preparing ${(AGENTS * ROWS_PER_AGENT) / 1e6} million events ...`)
  const batches = ROWS_PER_AGENT / ROWS_PER_BATCH
  const made = await simulated.ask({
    kind: 'prepare',
    fleet,
    batches,
    rowsPerBatch: ROWS_PER_BATCH,
    inFlightMax: 1,
  })
  await simulated.ask({ kind: 'connect' })
  await awaitLook(simulated, CONNECT_WAIT_MS, 'all agents connected', (look) => look.connected === AGENTS)

  say(`${PACED_ROWS_PER_SECOND} events a second for ${PACED_SECONDS} s ...`)
  await simulated.ask({ kind: 'send', rowsPerSecond: PACED_ROWS_PER_SECOND })
  await window(controller, simulated, PACED_SECONDS / 2)
  const paced = [await window(controller, simulated, PACED_SECONDS / 2)]
  await simulated.ask({ kind: 'hold' })

  say('as fast as it goes ...')
  await simulated.ask({ kind: 'send', rowsPerSecond: null })
  await window(controller, simulated, WARM_UP_SECONDS)
  const before = await simulated.ask({ kind: 'look' })
  const full: Window[] = []
  for (let number = 0; number < WINDOWS; number += 1) {
    const one = await window(controller, simulated, WINDOW_SECONDS)
    say(
      `  ${rounded(one.rowsPerSecond)} events/s, ${rounded(one.cpuSecondsPerMillion)} CPU-s per million, acknowledged after ${rounded(percentile(one.latencies, 0.5))} ms`,
    )
    full.push(one)
  }
  const after = await simulated.ask({ kind: 'look' })
  const residentMegabytes = residentBytes(controller.pid) / 1e6
  if (after.idleAgents > 0)
    throw new Error(`${after.idleAgents} agents ran out of events: raise ROWS_PER_AGENT`)
  if (Object.keys(after.refusals).length > 0) throw new Error(JSON.stringify(after.refusals))

  await simulated.ask({ kind: 'hold' })
  await awaitLook(simulated, DRAIN_WAIT_MS, 'every batch answered', (look) => look.inFlight === 0)
  const { streams } = await simulated.ask({ kind: 'acknowledged' })
  await controller.stop(30_000)
  say('reading the store ...')
  return {
    paced,
    full,
    residentMegabytes,
    simulatorCpuSecondsPerMillion:
      ((after.cpuSeconds - before.cpuSeconds) / (after.rowsAcknowledged - before.rowsAcknowledged)) * 1e6,
    bodyBytes: made.bodyBytes / made.rows,
    wireBytes: made.wireBytes / made.rows,
    stored: compareStored(`${controllerFolder}/events`, fleet.members, streams),
  }
}

async function window(controller: Program, simulated: SimulatedFleet, seconds: number): Promise<Window> {
  const before = await simulated.ask({ kind: 'look' })
  const cpuBefore = cpuSeconds(controller.pid)
  await sleep(seconds * 1_000)
  const cpu = cpuSeconds(controller.pid) - cpuBefore
  const after = await simulated.ask({ kind: 'look' })
  const rows = after.rowsAcknowledged - before.rowsAcknowledged
  return {
    rowsPerSecond: rows / ((after.atMs - before.atMs) / 1_000),
    cpuSecondsPerMillion: (cpu / rows) * 1e6,
    latencies: after.latencies,
  }
}

function report(measured: Measured): { figures: Record<string, number>; notes: string[] } {
  const { full, paced, stored } = measured
  const median = (pick: (one: Window) => number) => percentile(full.map(pick), 0.5)
  const latencies = full.flatMap((one) => one.latencies)
  const pacedLatencies = paced.flatMap((one) => one.latencies)
  return {
    figures: {
      events_per_s: median((one) => one.rowsPerSecond),
      cpu_s_per_million: median((one) => one.cpuSecondsPerMillion),
      bytes_per_event: stored.bytes / stored.rows,
      ack_p50_ms: percentile(latencies, 0.5),
      ack_p99_ms: percentile(latencies, 0.99),
      lost: stored.lost,
      duplicates: stored.duplicates,
      paced_events_per_s: percentile(
        paced.map((one) => one.rowsPerSecond),
        0.5,
      ),
      paced_ack_p50_ms: percentile(pacedLatencies, 0.5),
      paced_ack_p99_ms: percentile(pacedLatencies, 0.99),
      controller_rss_mb: measured.residentMegabytes,
      simulator_cpu_s_per_million: measured.simulatorCpuSecondsPerMillion,
      sealed_file_share: stored.sealedFiles / stored.files,
      json_bytes_per_event: measured.bodyBytes,
      wire_bytes_per_event: measured.wireBytes,
    },
    notes: [
      `medians of ${full.length} windows of ${WINDOW_SECONDS} s; ${AGENTS} agents with one batch of ${ROWS_PER_BATCH} events each unanswered; the controller runs from source as \`npm start\` does, its CPU is all threads of the process`,
      'the fleet is a process of its own on the same cores; its connections and back-off are the product’s, its batches were made before',
      `paced: ${PACED_ROWS_PER_SECOND} events a second offered evenly; ack_p50_ms and ack_p99_ms are with every agent waiting in line`,
      `${stored.rows} events in ${stored.files} files, ${stored.sealedFiles} of them sealed; lost and duplicates by agent, stream, class and sequence`,
    ],
  }
}
