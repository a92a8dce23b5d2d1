/**
 * Storms of processes, files and connections: whether all that was made is told, one by one or counted, what the
 * agent costs meanwhile, and how much slower the work gets. `storm/account.ts` says in what everything is counted.
 */
import { readdirSync, writeFileSync } from 'node:fs'
import { setPriority } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { packagePrograms } from '../package.ts'
import type { Deployment } from '../setup/deployment.ts'
import type { Operator } from '../setup/operator.ts'
import { type Bench, rounded } from './report.ts'
import type { Account } from './storm/account.ts'
import { createGenerator, type Generator, type Made, type Storm } from './storm/generator.ts'
import { readBack } from './storm/read-back.ts'
import { measureSlowdowns } from './storm/slow-down.ts'
import { cpuSeconds, residentBytes } from './usage.ts'
import { withDeployment } from './with-deployment.ts'

const COUNTED: readonly Storm[] = [
  // More than any machine makes in that time.
  { kind: 'processes', count: 10_000_000, secondsMax: 10 },
  { kind: 'files', count: 60_000 },
  { kind: 'files-apart', count: 20_000 },
  { kind: 'connections', count: 10_000, ratePerSecond: 1_000 },
]
const WARM_UP: readonly Storm[] = [
  { kind: 'processes', count: 5_000, secondsMax: 60 },
  { kind: 'files', count: 10_000 },
  { kind: 'connections', count: 3_000, ratePerSecond: 1_000 },
]
const SETTLE_MS = 3_000
const LOWEST_PRIORITY = 19

interface Counted {
  readonly storm: Storm
  readonly made: Made
  readonly account: Account
  readonly cpuSeconds: number
  readonly wallSeconds: number
  readonly residentMb: number
}

export const stormBench: Bench = {
  name: 'storm',
  summary:
    'storms of processes, files and connections: all told or counted, CPU of the agent, slow-down beside auditd',
  async run(context) {
    const { folder, say } = context
    await packagePrograms(say)
    process.env['CORDON_TEST_PROGRAMS'] = 'dist'
    const generator = createGenerator(folder)
    try {
      return await withDeployment(context, 'storm', {}, async (deployment, operator) => {
        const { sensors } = deployment.agentFacts
        say(`sensors: ${sensors.join(', ')}; warming up ...`)
        for (const storm of WARM_UP) await generator.run(storm)
        await sleep(SETTLE_MS)
        const counted: Counted[] = []
        for (const storm of COUNTED) counted.push(await count(deployment, operator, generator, storm, say))
        await deployment.agent.stop()
        // It would run on a machine of its own: while work is timed, it has what the others leave.
        lowerPriority(deployment.controller.pid)
        const slowdowns = await measureSlowdowns(deployment, generator, folder, say)
        const sum = (pick: (one: Counted) => number) => counted.reduce((total, one) => total + pick(one), 0)
        return {
          figures: {
            made: sum(({ account }) => account.made),
            seen: sum(({ account }) => account.seen),
            gap: sum(({ account }) => account.gap),
            unaccounted: sum(({ account }) => account.unaccounted),
            agent_cpu_core_share: sum((one) => one.cpuSeconds) / sum((one) => one.wallSeconds),
            workload_slowdown: slowdowns.agent,
            auditd_slowdown: slowdowns.auditd,
          },
          notes: [
            `sensors ${sensors.join(', ')}; packed programs; files in ${generator.filesFolder}; the controller runs on the same cores, at the lowest priority while work is timed`,
            ...counted.map(describe),
            ...slowdowns.notes,
          ],
        }
      })
    } finally {
      await generator.close()
    }
  },
}

async function count(
  deployment: Deployment,
  operator: Operator,
  generator: Generator,
  storm: Storm,
  say: (line: string) => void,
): Promise<Counted> {
  say(`${storm.kind} ...`)
  const { pid } = deployment.agent
  const fromMs = Date.now()
  const before = { cpu: cpuSeconds(pid), ms: performance.now() }
  const made = await generator.run(storm)
  // What still waits in queues belongs to the cost.
  await sleep(1_000)
  const wallSeconds = (performance.now() - before.ms) / 1_000
  const counted = { storm, made, wallSeconds, cpuSeconds: cpuSeconds(pid) - before.cpu }
  const residentMb = residentBytes(pid) / 1024 ** 2
  await sleep(SETTLE_MS)
  const { executable } = generator
  const account = await readBack({ operator, kind: storm.kind, made, executable, fromMs })
  const all = { ...counted, residentMb, account }
  say(describe(all))
  return all
}

function describe({ storm, made, account, cpuSeconds, wallSeconds, residentMb }: Counted): string {
  const wrong = Object.entries(account.unaccountedByAction).filter(([, count]) => count !== 0)
  const parts = [
    `${made.made} ${storm.kind} in ${rounded(made.seconds)} s: made ${account.made}, seen ${account.seen}, in gaps ${account.gap}`,
    `unaccounted ${account.unaccounted}${wrong.map(([action, count]) => ` (${action} ${count})`).join('')}`,
    ...(account.merged > 0 ? [`${account.merged} writes told with their creation`] : []),
    ...(account.repeated > 0 ? [`${account.repeated} told as repeats`] : []),
    ...Object.entries(account.gapOfNobody).map(
      ([reason, count]) => `${count} of the gaps name no process: ${reason}`,
    ),
    ...(account.uncounted > 0 ? [`${account.uncounted} losses without a number`] : []),
    `agent ${rounded(cpuSeconds / wallSeconds)} cores, ${rounded(residentMb)} MB`,
  ]
  return parts.join('; ')
}

/** Of all its threads (setpriority(2)), and of its group where sessions are scheduled as groups (sched(7)). */
function lowerPriority(pid: number): void {
  for (const thread of readdirSync(`/proc/${pid}/task`)) setPriority(Number(thread), LOWEST_PRIORITY)
  try {
    writeFileSync(`/proc/${pid}/autogroup`, String(LOWEST_PRIORITY))
  } catch {
    // The kernel has no such groups.
  }
}
