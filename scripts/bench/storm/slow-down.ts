/**
 * How much longer the same work takes with the agent, and with auditd, than with neither. The three take turns, because
 * a machine is never equally fast for long, and the medians are compared.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Deployment } from '../../setup/deployment.ts'
import { startAgent } from '../../setup/deployment.ts'
import { percentile } from '../report.ts'
import { withAuditd } from './auditd.ts'
import type { Generator, Made, Storm } from './generator.ts'

const ROUNDS = 3
/** What one storm leaves to be done is done before the next is timed. */
const PAUSE_MS = 3_000
/** As fast as it can, a few seconds each. */
const WORK: readonly Storm[] = [
  { kind: 'processes', count: 6_000, secondsMax: 600 },
  { kind: 'files', count: 60_000 },
  { kind: 'connections', count: 20_000, ratePerSecond: 0 },
]
/** A program that just started is still being compiled: that is over once. */
const WARM_UP: readonly Storm[] = [
  { kind: 'processes', count: 3_000, secondsMax: 600 },
  { kind: 'files', count: 20_000 },
  { kind: 'connections', count: 5_000, ratePerSecond: 0 },
]

export interface Slowdowns {
  /** Done with it over done with neither, all work together; NaN when it was not measured. */
  readonly agent: number
  readonly auditd: number
  readonly notes: readonly string[]
}

type Arm = 'neither' | 'agent' | 'auditd'
/** By round, and in it by kind of work. */
type Done = Record<Arm, (readonly Made[])[]>

/** The controller runs all the time; no agent may run when it is called. */
export async function measureSlowdowns(
  deployment: Deployment,
  generator: Generator,
  folder: string,
  say: (line: string) => void,
): Promise<Slowdowns> {
  const done: Done = { neither: [], agent: [], auditd: [] }
  let auditLost = 0
  let skipped: string | null = null
  for (let round = 1; round <= ROUNDS; round += 1) {
    say(`slow-down, round ${round} of ${ROUNDS} ...`)
    done.neither.push(await timeWork(generator))
    done.agent.push(await withAgent(deployment, generator))
    const auditd = await withAuditd(folder, generator.filesFolder, say, () => timeWork(generator))
    if (auditd.kind === 'skipped') {
      skipped = auditd.reason
    } else {
      done.auditd.push(auditd.value)
      auditLost += auditd.lost
    }
    for (const [arm, rounds] of Object.entries(done)) say(`${arm}: ${roundText(rounds.at(-1))}`)
  }
  const agent = compare(done, 'agent')
  const auditd = compare(done, 'auditd')
  return {
    agent: agent.whole,
    auditd: auditd.whole,
    notes: [
      `same work, as fast as it goes, ${ROUNDS} rounds that take turns, medians: ${describe(done, 'neither')} with neither, ${describe(done, 'agent')} with the agent (${agent.text})`,
      skipped === null
        ? `${describe(done, 'auditd')} with auditd (${auditd.text}), which lost ${auditLost} records; it is told execve, connect, accept and changes of files in one folder, and no ends of processes or connections`
        : `auditd was not measured: ${skipped}`,
    ],
  }
}

async function withAgent(deployment: Deployment, generator: Generator): Promise<Made[]> {
  const { agent } = await startAgent(deployment.folders, deployment.ports, { say: () => undefined })
  try {
    for (const storm of WARM_UP) await generator.run(storm)
    await sleep(PAUSE_MS)
    return await timeWork(generator)
  } finally {
    await agent.stop()
  }
}

async function timeWork(generator: Generator): Promise<Made[]> {
  const made: Made[] = []
  for (const storm of WORK) {
    made.push(await generator.run(storm))
    await sleep(PAUSE_MS)
  }
  return made
}

type Pick = (made: Made) => number
const inSeconds: Pick = ({ seconds }) => seconds
const inCpuSeconds: Pick = ({ cpuSeconds }) => cpuSeconds

function medians(rounds: Done[Arm], pick: Pick): number[] {
  return WORK.map((_, at) =>
    percentile(
      rounds.flatMap((made) => made.slice(at, at + 1).map(pick)),
      0.5,
    ),
  )
}

const sumOf = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0)

function compare(done: Done, arm: Arm): { readonly whole: number; readonly text: string } {
  const ratios = (pick: Pick) => {
    const without = medians(done.neither, pick)
    const withIt = medians(done[arm], pick)
    const each = withIt.map((value, at) => (value / (without[at] ?? Number.NaN)).toFixed(2))
    return { whole: sumOf(withIt) / sumOf(without), text: each.join(' / ') }
  }
  const lasted = ratios(inSeconds)
  return { whole: lasted.whole, text: `${lasted.text} times; its own CPU ${ratios(inCpuSeconds).text} times` }
}

function describe(done: Done, arm: Arm): string {
  const cpu = medians(done[arm], inCpuSeconds)
  return medians(done[arm], inSeconds)
    .map(
      (seconds, at) =>
        `${WORK[at]?.count} ${WORK[at]?.kind} ${seconds.toFixed(2)} s (CPU ${cpu[at]?.toFixed(2)} s)`,
    )
    .join(', ')
}

function roundText(made: readonly Made[] | undefined): string {
  if (made === undefined) return 'not measured'
  return made
    .map(({ seconds, cpuSeconds }) => `${seconds.toFixed(2)} s (CPU ${cpuSeconds.toFixed(2)} s)`)
    .join(', ')
}
