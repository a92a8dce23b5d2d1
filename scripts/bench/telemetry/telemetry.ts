/**
 * The 34 rows of the EDR Telemetry Project's table for Linux: each behaviour is made so many times, and counted in
 * the controller's store, with the process that did it. A row is seen when every single one came, and none twice.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { StatusReport } from '../../../agent/health/report.ts'
import type { RowCoverage } from '../../../agent/sensors/telemetry/coverage.ts'
import { ROWS } from '../../../agent/sensors/telemetry/rows.ts'
import { Events } from '../../../controller/api/schemas.ts'
import { AGENT, type Deployment, startAgent } from '../../setup/deployment.ts'
import type { Operator } from '../../setup/operator.ts'
import { type Program, runProgram } from '../../setup/program.ts'
import { type Bench, percentile } from '../report.ts'
import { withDeployment } from '../with-deployment.ts'
import { makeOnBootedHost } from './booted-host.ts'
import { makeContents, makeDirectCalls, makeScripts } from './direct-calls.ts'
import type { Fields, Made, Seen } from './rows.ts'

const COUNT = 20
/** Logons and account tools take a while each. */
const BOOTED_COUNT = 5
const ARRIVAL_WAIT_MS = 30_000
/** Small: the store gives up what takes it long. */
const PAGE = 1_000
/** Events of a row that is not whole, told for whoever looks for the reason. */
const OTHERS_TOLD = 3

export const telemetryBench: Bench = {
  name: 'telemetry',
  summary: 'the 34 rows of telemetry on Linux: made so many times, seen so many times in the store',
  async run(context) {
    const { folder, say } = context
    const forced: Record<string, string> =
      context.sensors === undefined ? {} : { CORDON_AGENT_SENSORS: context.sensors }
    const outcome = await withDeployment(context, 'telemetry', forced, async (deployment, operator) => {
      const startedMs = Date.now()
      const made: Made[] = []
      const problems: string[] = []
      const attempt = async (what: string, make: () => Promise<readonly Made[]>) => {
        try {
          made.push(...(await make()))
        } catch (error) {
          problems.push(`${what}: ${error instanceof Error ? error.message : String(error)}`)
        }
      }
      const work = { folder, count: COUNT, say }
      await attempt('direct calls', () => makeDirectCalls(work))
      await attempt('scripts', async () => [await makeScripts(work)])
      await attempt('contents', () => makeContents(work))
      await attempt('a booted host', () => makeOnBootedHost({ count: BOOTED_COUNT, say, pause: sleep }))
      const claims = await readClaims(deployment)
      const running = { agent: deployment.agent }
      try {
        await attempt('the agent', () => restartAgent(deployment, running, forced, say))
        return { counted: await countSeen(operator, deployment, made, startedMs), problems, claims }
      } finally {
        await running.agent.stop(5_000)
      }
    })
    const rows = ROWS.map((row) => outcome.counted.rows.find((one) => one.row === row.name) ?? row.name)
    const isWhole = (row: Seen | string) => typeof row !== 'string' && row.seen === row.made
    const whole = rows.filter(isWhole)
    const claimed = rows.filter((row) => outcome.claims.get(nameOf(row))?.seen === 'yes')
    return {
      figures: {
        rows_seen: whole.length,
        rows_total: ROWS.length,
        rows_claimed: claimed.length,
        rows_claimed_not_seen: claimed.filter((row) => !isWhole(row)).length,
        event_bytes_p50: outcome.counted.eventBytes,
      },
      notes: [
        ...rows.map((row) => describeRow(row, outcome.claims)),
        ...outcome.problems.map((problem) => `not made: ${problem}`),
      ],
    }
  },
}

function nameOf(row: Seen | string): string {
  return typeof row === 'string' ? row : row.row
}

function describeRow(row: Seen | string, claims: ReadonlyMap<string, RowCoverage>): string {
  if (typeof row === 'string') return `${row}: made 0, seen 0`
  const claim = claims.get(row.row)
  const others = row.others.map((event) => JSON.stringify(event)).join(' ')
  const verdict = row.seen === row.made ? '' : ` NOT WHOLE; of its kind, but not counted: ${others || 'none'}`
  return `${row.row}: made ${row.made}, seen ${row.seen} (${row.action} by ${claim?.source ?? 'nothing'}, which says ${claim?.seen ?? 'nothing'})${verdict}`
}

const RESTARTS = 3

/** Stops and starts the agent a few times; the last one runs on, until it is stopped by the result. */
async function restartAgent(
  deployment: Deployment,
  running: { agent: Program },
  environment: Record<string, string>,
  say: (line: string) => void,
): Promise<Made[]> {
  for (let round = 0; round < RESTARTS; round += 1) {
    say('the agent ends and starts again ...')
    await running.agent.stop(10_000)
    const started = await startAgent(deployment.folders, deployment.ports, {
      say,
      agentEnvironment: environment,
    })
    running.agent = started.agent
  }
  return [
    { row: 'Agent start', made: RESTARTS, action: 'agent-started', isOne: () => true },
    { row: 'Agent stop', made: RESTARTS, action: 'agent-stopped', isOne: () => true },
  ]
}

/** What the agent says that it sees each row by. */
/** What the agent says of each row before anything is made. */
async function readClaims(deployment: Deployment): Promise<ReadonlyMap<string, RowCoverage>> {
  const ran = await runProgram(AGENT, ['status', '--json'], { CORDON_AGENT_STATE: deployment.folders.agent })
  if (ran.code !== 0) return new Map()
  const { telemetry }: StatusReport = JSON.parse(ran.stdout)
  return new Map(telemetry.map((row) => [row.name, row]))
}

interface Counted {
  readonly rows: readonly Seen[]
  /** Median of the events of all kinds that were counted, as they go over the wire before compression. */
  readonly eventBytes: number
}

/** Waits until all has come or the time is over, and counts once more: what comes twice would come too. */
async function countSeen(
  operator: Operator,
  deployment: Deployment,
  made: readonly Made[],
  startedMs: number,
): Promise<Counted> {
  const untilMs = Date.now() + ARRIVAL_WAIT_MS
  for (;;) {
    const { rows } = await count(operator, deployment, made, startedMs)
    if (rows.every((row) => row.seen >= row.made) || Date.now() > untilMs) {
      await sleep(2_000)
      return count(operator, deployment, made, startedMs)
    }
    await sleep(1_000)
  }
}

async function count(
  operator: Operator,
  deployment: Deployment,
  made: readonly Made[],
  startedMs: number,
): Promise<Counted> {
  const byAction = new Map<string, readonly Fields[]>()
  for (const { action } of made) {
    if (byAction.has(action)) continue
    byAction.set(action, await readAll(operator, deployment, action, startedMs))
  }
  const rows = made.map((row) => {
    const told = byAction.get(row.action) ?? []
    const others = told.filter((event) => !row.isOne(event))
    return { ...row, seen: told.length - others.length, others: others.slice(-OTHERS_TOLD) }
  })
  const bytes = [...byAction.values()].flat().map((event) => Buffer.byteLength(JSON.stringify(event)))
  return { rows, eventBytes: percentile(bytes, 0.5) }
}

async function readAll(operator: Operator, { agentFacts }: Deployment, action: string, fromMs: number) {
  const rows: Fields[] = []
  for (let after = ''; ; ) {
    const { events } = await operator.get('/events', Events, {
      agentId: agentFacts.agentId,
      action,
      fromMs,
      order: 'ascending',
      limit: PAGE,
      ...(after === '' ? {} : { after }),
    })
    rows.push(...events.map(({ event }) => ({ ...event })))
    after = events.at(-1)?.cursor ?? ''
    if (events.length < PAGE) return rows
  }
}
