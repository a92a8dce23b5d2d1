/**
 * What the packed agent costs a host on which nothing happens: resident memory a minute after its start, divided
 * by what it is made of, the time its version takes, and its share of a core.
 */
import { spawnSync } from 'node:child_process'
import { closeSync, fsyncSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { packagePrograms } from '../package.ts'
import { DIST } from '../setup/program.ts'
import { type Bench, type BenchContext, percentile, rounded } from './report.ts'
import { cpuSeconds, processTree } from './usage.ts'
import { withDeployment } from './with-deployment.ts'

const SETTLE_S = 60
const MEASURED_S = 60
const SAMPLE_INTERVAL_MS = 2_000
const VERSION_RUNS = 20
const MEGABYTE = 1_024 / 1e6

/** In MB, of the agent and all that it started. */
interface Memory {
  readonly processes: number
  readonly rss: number
  readonly pss: number
  /** Written by the process: heaps and stacks. What no other use of the memory can take without swap. */
  readonly anonymous: number
  /** Malloc's main heap, part of the anonymous. */
  readonly heap: number
  /** The program's own code and constants, as far as they are mapped: the kernel takes them when it needs room. */
  readonly program: number
  readonly libraries: number
  readonly ring: number
}

export const agentBench: Bench = {
  name: 'agent',
  summary:
    'the packed agent on an idle host: resident memory and its division, time of --version, share of a core',
  async run(context) {
    await packagePrograms(context.say)
    for (const program of ['cordon-agent', 'cordon-controller']) forgetCached(join(DIST, program))
    const versionMs = Array.from({ length: VERSION_RUNS }, timeVersion)
    process.env['CORDON_TEST_PROGRAMS'] = 'dist'
    const { samples, share, sensors } = await measureIdle(context)
    const median = (pick: (memory: Memory) => number) => percentile(samples.map(pick), 0.5)
    return {
      figures: {
        idle_rss_mb: median((memory) => memory.rss),
        idle_pss_mb: median((memory) => memory.pss),
        version_ms: percentile(versionMs, 0.5),
        idle_cpu_core_share: share,
        idle_anonymous_mb: median((memory) => memory.anonymous),
        idle_malloc_mb: median((memory) => memory.heap),
        idle_program_mb: median((memory) => memory.program),
        idle_libraries_mb: median((memory) => memory.libraries),
        idle_ring_mb: median((memory) => memory.ring),
      },
      notes: [
        `sensors ${sensors.join(', ')}; shipped rules and indicators; connected to a controller; medians of ${samples.length} samples in ${MEASURED_S} s, ${SETTLE_S} s after the start`,
        `the scanner child was there in ${samples.filter(({ processes }) => processes > 1).length} of ${samples.length} samples: it leaves after 20 s without a file to examine`,
        `resident between ${rounded(Math.min(...samples.map(({ rss }) => rss)))} and ${rounded(Math.max(...samples.map(({ rss }) => rss)))} MB; the program's pages were dropped from the page cache before the start`,
        `--version: ${VERSION_RUNS} runs, least ${rounded(Math.min(...versionMs))} ms, most ${rounded(Math.max(...versionMs))} ms`,
      ],
    }
  },
}

function measureIdle(context: BenchContext) {
  return withDeployment(context, 'idle', {}, async ({ agent, agentFacts }) => {
    context.say(`waiting ${SETTLE_S} s, then measuring for ${MEASURED_S} s ...`)
    await sleep(SETTLE_S * 1_000)
    const samples: Memory[] = []
    const before = { cpu: cpuSeconds(agent.pid), ms: performance.now() }
    while (performance.now() - before.ms < MEASURED_S * 1_000) {
      samples.push(memoryOf(agent.pid))
      await sleep(SAMPLE_INTERVAL_MS)
    }
    // A child that came and went in between is not in it: there is none on an idle host.
    const seconds = (performance.now() - before.ms) / 1_000
    const share = Math.max(0, cpuSeconds(agent.pid) - before.cpu) / seconds
    return { samples, share, sensors: agentFacts.sensors }
  })
}

/** A file that was just written lies in the cache in large pieces, which are then mapped as a whole. */
function forgetCached(path: string): void {
  const fd = openSync(path, 'r')
  fsyncSync(fd)
  closeSync(fd)
  spawnSync('dd', [`of=${path}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0'], { stdio: 'ignore' })
}

function timeVersion(): number {
  const startedMs = performance.now()
  const ran = spawnSync(join(DIST, 'cordon-agent'), ['--version'], { encoding: 'utf8' })
  const tookMs = performance.now() - startedMs
  if (ran.status !== 0) throw new Error(`cordon-agent --version ended with ${ran.status}: ${ran.stderr}`)
  return tookMs
}

function memoryOf(pid: number): Memory {
  const sum = { processes: 0, rss: 0, pss: 0, anonymous: 0, heap: 0, program: 0, libraries: 0, ring: 0 }
  for (const one of processTree(pid)) {
    sum.processes += 1
    for (const { name, rss, pss, anonymous } of mappings(one)) {
      sum.rss += rss
      sum.pss += pss
      sum.anonymous += anonymous
      if (name === '[heap]') sum.heap += rss
      else if (name.endsWith('/cordon-agent')) sum.program += rss - anonymous
      else if (name === 'anon_inode:bpf-map') sum.ring += rss
      else if (name.startsWith('/')) sum.libraries += rss - anonymous
    }
  }
  return sum
}

/** From /proc/PID/smaps (proc(5)), in MB. Empty for a process that ended in between. */
function mappings(pid: number) {
  let text: string
  try {
    text = readFileSync(`/proc/${pid}/smaps`, 'utf8')
  } catch {
    return []
  }
  return text.split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/).map((part) => {
    const size = (key: string) =>
      Number(new RegExp(`^${key}: +([0-9]+) kB$`, 'm').exec(part)?.[1] ?? 0) * MEGABYTE
    const name = /^\S+ \S+ \S+ \S+ \S+ *(.*)$/m.exec(part)?.[1] ?? ''
    return { name, rss: size('Rss'), pss: size('Pss'), anonymous: size('Anonymous') }
  })
}
