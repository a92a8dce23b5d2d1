/**
 * How much longer the same work takes with the agent, and with auditd, than with neither. The three take turns, because
 * a machine is never equally fast for long, and the medians are compared.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Deployment } from '../../setup/deployment.ts'
import { startAgent } from '../../setup/deployment.ts'
import { percentile } from '../report.ts'
import { withAuditd } from './auditd.ts'
import type { Generator, Storm } from './generator.ts'

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
  /** Durations with it over durations with neither, all work together; NaN when it was not measured. */
  readonly agent: number
  readonly auditd: number
  readonly notes: readonly string[]
}

type Arm = 'neither' | 'agent' | 'auditd'
/** Seconds of each kind of work, one for each round. */
type Durations = Record<Arm, number[][]>

/** The controller runs all the time; no agent may run when it is called. */
export async function measureSlowdowns(
  deployment: Deployment,
  generator: Generator,
  folder: string,
  say: (line: string) => void,
): Promise<Slowdowns> {
  const durations: Durations = { neither: [], agent: [], auditd: [] }
  let auditLost = 0
  let skipped: string | null = null
  for (let round = 1; round <= ROUNDS; round += 1) {
    say(`slow-down, round ${round} of ${ROUNDS} ...`)
    durations.neither.push(await timeWork(generator))
    durations.agent.push(await withAgent(deployment, generator))
    const auditd = await withAuditd(folder, generator.filesFolder, say, () => timeWork(generator))
    if (auditd.kind === 'skipped') {
      skipped = auditd.reason
    } else {
      durations.auditd.push(auditd.value)
      auditLost += auditd.lost
    }
    for (const [arm, rounds] of Object.entries(durations))
      say(
        `${arm}: ${
          rounds
            .at(-1)
            ?.map((seconds) => seconds.toFixed(2))
            .join(', ') ?? '-'
        } s`,
      )
  }
  const agent = compare(durations, 'agent')
  const auditd = compare(durations, 'auditd')
  return {
    agent: agent.whole,
    auditd: auditd.whole,
    notes: [
      `same work, as fast as it goes, ${ROUNDS} rounds that take turns, medians: ${describe(durations, 'neither')} with neither, ${describe(durations, 'agent')} with the agent (${agent.text})`,
      skipped === null
        ? `${describe(durations, 'auditd')} with auditd (${auditd.text}), which lost ${auditLost} records; it is told execve, connect, accept and changes of files in one folder, and no ends of processes or connections`
        : `auditd was not measured: ${skipped}`,
    ],
  }
}

async function withAgent(deployment: Deployment, generator: Generator): Promise<number[]> {
  const { agent } = await startAgent(deployment.folders, deployment.ports, { say: () => undefined })
  try {
    for (const storm of WARM_UP) await generator.run(storm)
    await sleep(PAUSE_MS)
    return await timeWork(generator)
  } finally {
    await agent.stop()
  }
}

async function timeWork(generator: Generator): Promise<number[]> {
  const seconds: number[] = []
  for (const storm of WORK) {
    seconds.push((await generator.run(storm)).seconds)
    await sleep(PAUSE_MS)
  }
  return seconds
}

const medians = (rounds: readonly number[][]) =>
  WORK.map((_, at) =>
    percentile(
      rounds.map((seconds) => seconds[at] ?? Number.NaN),
      0.5,
    ),
  )

const sumOf = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0)

function compare(durations: Durations, arm: Arm): { readonly whole: number; readonly text: string } {
  const without = medians(durations.neither)
  const withIt = medians(durations[arm])
  const each = WORK.map(({ kind }, at) => `${kind} ${((withIt[at] ?? 0) / (without[at] ?? 1)).toFixed(2)}`)
  return { whole: sumOf(withIt) / sumOf(without), text: each.join(', ') }
}

function describe(durations: Durations, arm: Arm): string {
  return medians(durations[arm])
    .map((seconds, at) => `${WORK[at]?.count} ${WORK[at]?.kind} ${seconds.toFixed(2)} s`)
    .join(', ')
}
