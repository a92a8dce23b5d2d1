/**
 * Short-lived processes at 200 and 1,000 a second: how many reach the controller's store whole, what the agent
 * costs, how long it takes. `made` comes from the generator, `seen` from the store.
 */
import { execFileSync, spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { compileGenerateExec, compileTinyExit } from '../../agent/native/testing/compile.ts'
import type { Deployment } from '../setup/deployment.ts'
import type { Operator } from '../setup/operator.ts'
import { readEvents } from './read-events.ts'
import { type Bench, type BenchContext, percentile, rounded } from './report.ts'
import { cpuSeconds, machineCpuSeconds, residentBytes } from './usage.ts'
import { withDeployment } from './with-deployment.ts'

const RATES = [200, 1_000] as const
const DURATION_S = 20
const POLLING_DURATION_S = 10
const WARM_UP_S = 15
/** After the generator ends, everything is in the store within this time or it is lost. */
const ARRIVAL_WAIT_MS = 15_000

interface Made {
  readonly made: number
  readonly failed: number
  readonly seconds: number
}

interface Measured {
  readonly made: number
  readonly seenShare: number
  readonly argvShare: number
  readonly exitShare: number
  readonly agentShare: number
  readonly machineShare: number
  readonly latenciesMs: readonly number[]
  readonly residentMb: number
}

export const execBench: Bench = {
  name: 'exec',
  summary:
    'short-lived processes at 200/s and 1,000/s: seen, argv, exit code, CPU of the whole agent, latency',
  async run(context) {
    const { folder, say } = context
    const generator = compileGenerateExec(folder)
    const without: number[] = []
    for (const rate of RATES) {
      say(`${rate}/s without an agent ...`)
      const before = machineCpuSeconds()
      const made = await generate(generator, compileTinyExit(folder, `bare-${rate}`), rate, DURATION_S)
      without.push((machineCpuSeconds() - before) / made.seconds)
    }
    const kernel = await withDeployment(context, 'kernel', {}, async (deployment, operator) => {
      say(`sensors: ${deployment.agentFacts.sensors.join(', ')}`)
      const idle = await idleShare(deployment)
      // A program that just started is still being compiled: that is over once and is not what it costs.
      say('warming up ...')
      await generate(generator, compileTinyExit(folder, 'warm-up'), 1_000, WARM_UP_S)
      const measured = []
      for (const rate of RATES)
        measured.push(await measure(context, deployment, operator, generator, rate, DURATION_S))
      return { idle, measured, sensors: deployment.agentFacts.sensors }
    })
    const polling = await withDeployment(
      context,
      'polling',
      { CORDON_AGENT_SENSORS: 'polling' },
      (deployment, operator) => measure(context, deployment, operator, generator, 200, POLLING_DURATION_S),
    )
    const [slow, fast] = kernel.measured
    if (!slow || !fast) throw new Error('both rates were measured')
    return {
      figures: {
        seen_share_200: slow.seenShare,
        seen_share_1000: fast.seenShare,
        argv_share_1000: fast.argvShare,
        exit_code_share_1000: fast.exitShare,
        cpu_core_share_200: slow.agentShare,
        cpu_core_share_1000: fast.agentShare,
        latency_p50_ms: percentile(fast.latenciesMs, 0.5),
        latency_p99_ms: percentile(fast.latenciesMs, 0.99),
        polling_seen_share_200: polling.seenShare,
      },
      notes: [
        `made ${slow.made} at 200/s and ${fast.made} at 1,000/s in ${DURATION_S} s each; sensors ${kernel.sensors.join(', ')}; shipped YARA rules and indicators on`,
        `measured after ${WARM_UP_S} s of warming up`,
        'CPU is the whole agent with its scanner process (sensor, checks, buffer, uplink), in cores; latency is from just before execve to the controller having received the event',
        `agent at rest ${rounded(kernel.idle)} cores; resident with scanner ${rounded(fast.residentMb)} MB`,
        `machine without agent ${without.map(rounded).join(' / ')} cores, with agent and controller ${rounded(slow.machineShare)} / ${rounded(fast.machineShare)} cores (200/s / 1,000/s)`,
        `argv at 200/s ${rounded(slow.argvShare)}, exit codes at 200/s ${rounded(slow.exitShare)}`,
      ],
    }
  },
}

async function idleShare(deployment: Deployment): Promise<number> {
  await sleep(5_000)
  const before = cpuSeconds(deployment.agent.pid)
  await sleep(10_000)
  return (cpuSeconds(deployment.agent.pid) - before) / 10
}

async function measure(
  { folder, say }: BenchContext,
  deployment: Deployment,
  operator: Operator,
  generator: string,
  rate: number,
  durationS: number,
): Promise<Measured> {
  const name = `tiny-${rate}-${deployment.agent.pid}`
  const executable = compileTinyExit(folder, name)
  // Read once before: a content that the agent has never seen is examined, and that is not what is measured.
  execFileSync(executable, ['--exit=0'])
  await sleep(2_000)
  say(`${rate}/s for ${durationS} s ...`)
  const [agentBefore, machineBefore, startedMs] = [
    cpuSeconds(deployment.agent.pid),
    machineCpuSeconds(),
    Date.now(),
  ]
  const made = await generate(generator, executable, rate, durationS)
  // What still waits in buffers belongs to the cost.
  await sleep(1_000)
  const wallS = (Date.now() - startedMs) / 1_000
  const agentShare = (cpuSeconds(deployment.agent.pid) - agentBefore) / wallS
  const machineShare = (machineCpuSeconds() - machineBefore) / wallS
  if (made.failed > 0) throw new Error(`${made.failed} of ${made.made} processes could not be made`)
  return {
    ...(await readBack(operator, executable, name, made.made, startedMs)),
    made: made.made,
    agentShare,
    machineShare,
    residentMb: residentBytes(deployment.agent.pid) / 1024 ** 2,
  }
}

/** Waits until the store has all, or the time is over, and compares each event with what was made. */
async function readBack(
  operator: Operator,
  executable: string,
  name: string,
  made: number,
  startedMs: number,
) {
  const untilMs = Date.now() + ARRIVAL_WAIT_MS
  for (;;) {
    const execs = (await readEvents(operator, { action: 'exec', contains: name, fromMs: startedMs }))
      .map((row) => ({ ...row, fields: row.event as Readonly<Record<string, unknown>> }))
      .filter((row) => row.fields['process.executable'] === executable)
    const exits = new Map<string, unknown>()
    for (const row of await readEvents(operator, { action: 'exit', fromMs: startedMs })) {
      const fields: Readonly<Record<string, unknown>> = { ...row.event }
      exits.set(String(fields['process.entity_id']), fields['process.exit_code'])
    }
    const sequences = new Set<number>()
    const latenciesMs: number[] = []
    let argvRight = 0
    let exitRight = 0
    for (const { fields, receivedMs } of execs) {
      const line = String(fields['process.command_line'])
      const match = /^(\S+) --sequence=(\d{8}) --time=(\d+\.\d{3}) --exit=(\d)$/.exec(line)
      const sequence = Number(match?.[2] ?? Number.NaN)
      if (!match || sequences.has(sequence)) continue
      sequences.add(sequence)
      latenciesMs.push(receivedMs - Number(match[3]))
      if (match[1] === executable && Number(match[4]) === sequence % 7 && fields['process.args_count'] === 4)
        argvRight += 1
      if (exits.get(String(fields['process.entity_id'])) === sequence % 7) exitRight += 1
    }
    const measured = {
      seenShare: sequences.size / made,
      argvShare: argvRight / made,
      exitShare: exitRight / made,
      latenciesMs,
    }
    if ((sequences.size >= made && exitRight >= made) || Date.now() > untilMs) return measured
    await sleep(1_000)
  }
}

function generate(generator: string, executable: string, rate: number, durationS: number): Promise<Made> {
  return new Promise((resolve, reject) => {
    const child = spawn(generator, [String(rate * durationS), String(rate), executable], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let text = ''
    child.stdout.on('data', (chunk) => {
      text += chunk
    })
    child.once('error', reject)
    child.once('close', () => {
      try {
        resolve(JSON.parse(text))
      } catch (cause) {
        reject(new Error(`the generator said ${text}`, { cause }))
      }
    })
  })
}
