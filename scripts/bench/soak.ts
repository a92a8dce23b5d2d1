/**
 * A packed agent on a host with little to do, for long: whether its memory grows, and its share of a core while
 * nothing happens at all.
 */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { packagePrograms } from '../package.ts'
import type { Deployment } from '../setup/deployment.ts'
import { type Bench, type BenchContext, rounded } from './report.ts'
import { growthOf, medianEnds, type Sample } from './soak/growth.ts'
import { type Done, trickle } from './soak/trickle.ts'
import { cpuSeconds, processTree } from './usage.ts'
import { withDeployment } from './with-deployment.ts'

const MINUTES = 60
const SETTLE_S = 60
const IDLE_S = 120
const WARM_UP_S = 120
const SAMPLE_INTERVAL_MS = 15_000
const MEGABYTES_PER_KIBIBYTE = 1_024 / 1e6

interface Memory {
  readonly seconds: number
  /** In MB, of the process that runs all the time. */
  readonly main: number
  readonly mainAnonymous: number
  /** Of all that it started, which is the scanner. */
  readonly others: number
  readonly isScannerThere: boolean
}

export const soakBench: Bench = {
  name: 'soak',
  summary:
    'the packed agent for --minutes N (60): growth of its memory under a trickle, share of a core at rest',
  async run(context) {
    const minutes = context.minutes ?? MINUTES
    await packagePrograms(context.say)
    process.env['CORDON_TEST_PROGRAMS'] = 'dist'
    return withDeployment(context, 'soak', {}, async (deployment) => {
      const idle = await measureIdle(deployment, context)
      context.say(`a trickle for ${minutes} minutes ...`)
      const { samples, done } = await soak(deployment, context, minutes * 60)
      return {
        figures: {
          rss_growth_mb: growthOf(seriesOf(samples, ({ main }) => main)),
          idle_cpu_core_share: idle,
        },
        notes: describe(samples, done, minutes, deployment.agentFacts.sensors),
      }
    })
  },
}

/** Nothing of the bench's own happens: what others do on the host is in it. */
async function measureIdle({ agent }: Deployment, { say }: BenchContext): Promise<number> {
  say(`waiting ${SETTLE_S} s, then measuring at rest for ${IDLE_S} s ...`)
  await sleep(SETTLE_S * 1_000)
  const before = { cpu: cpuSeconds(agent.pid), ms: performance.now() }
  await sleep(IDLE_S * 1_000)
  const share = (cpuSeconds(agent.pid) - before.cpu) / ((performance.now() - before.ms) / 1_000)
  // A child that left in between and was not waited for takes its share with it.
  return Math.max(0, share)
}

async function soak(
  { agent }: Deployment,
  { folder, say }: BenchContext,
  durationS: number,
): Promise<{ samples: readonly Memory[]; done: Done }> {
  const stop = new AbortController()
  const trickling = trickle(folder, stop.signal)
  const failed = trickling.then(
    () => null,
    (error: unknown) => error,
  )
  const samples: Memory[] = []
  const startedMs = performance.now()
  try {
    for (let at = 1; at * SAMPLE_INTERVAL_MS <= durationS * 1_000; at += 1) {
      const untilMs = startedMs + at * SAMPLE_INTERVAL_MS - performance.now()
      // Null: it is time. What the trickle failed of ends the bench at once.
      const ended = await Promise.race([failed, sleep(Math.max(0, untilMs), null)])
      if (ended !== null) throw ended
      if (!agent.running()) throw new Error(`the agent ended; its log is ${agent.logPath}`)
      const seconds = (performance.now() - startedMs) / 1_000
      samples.push({ seconds, ...memoryOf(agent.pid) })
      if (at % 40 === 0) say(`${rounded(seconds / 60)} minutes, ${rounded(samples.at(-1)?.main ?? 0)} MB`)
    }
  } finally {
    stop.abort()
    await failed
  }
  return { samples: samples.filter(({ seconds }) => seconds >= WARM_UP_S), done: await trickling }
}

function memoryOf(pid: number): Omit<Memory, 'seconds'> {
  const [main = pid, ...others] = processTree(pid)
  const own = residentOf(main)
  return {
    main: own.resident,
    mainAnonymous: own.anonymous,
    others: others.reduce((sum, one) => sum + residentOf(one).resident, 0),
    isScannerThere: others.length > 0,
  }
}

/** From /proc/PID/smaps_rollup (proc(5)), in MB; 0 for a process that ended in between. */
function residentOf(pid: number): { readonly resident: number; readonly anonymous: number } {
  let text = ''
  try {
    text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  } catch {
    // It ended.
  }
  const size = (key: string) =>
    Number(new RegExp(`^${key}: +(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * MEGABYTES_PER_KIBIBYTE
  return { resident: size('Rss'), anonymous: size('Anonymous') }
}

function seriesOf(samples: readonly Memory[], pick: (memory: Memory) => number): Sample[] {
  return samples.map((memory) => ({ seconds: memory.seconds, value: pick(memory) }))
}

function describe(
  samples: readonly Memory[],
  done: Done,
  minutes: number,
  sensors: readonly string[],
): string[] {
  const main = seriesOf(samples, (memory) => memory.main)
  const anonymous = seriesOf(samples, ({ mainAnonymous }) => mainAnonymous)
  const withScanner = samples.filter(({ isScannerThere }) => isScannerThere)
  const scanner = seriesOf(withScanner, ({ others }) => others)
  const [first, last] = medianEnds(main).map(rounded)
  return [
    `sensors ${sensors.join(', ')}; ${minutes} minutes of trickle (${done.programs} programs, ${done.files} files, ${done.connections} connections), ${samples.length} samples after ${WARM_UP_S / 60} minutes of warming up`,
    `the process that runs all the time: resident ${first} MB at the median of the first quarter, ${last} MB of the last; what it wrote itself grew by ${rounded(growthOf(anonymous))} MB`,
    withScanner.length === 0
      ? 'the scanner was there in no sample'
      : `the scanner was there in ${withScanner.length} of ${samples.length} samples, with ${medianEnds(scanner).map(rounded).join(' MB at first and ')} MB at last; it grew by ${rounded(growthOf(scanner))} MB, and leaves when there is nothing to examine`,
    `share of a core at rest: ${IDLE_S} s without the trickle, ${SETTLE_S} s after the start, all of the agent's processes`,
  ]
}
