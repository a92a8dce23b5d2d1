/**
 * From a malicious file to containment: a process that lives a few milliseconds writes the EICAR test file; how
 * soon there is a detection, an incident, and an end to the process that started it.
 */
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { readStat } from '../../agent/platform/linux/processes.ts'
import { Detections, Events, Hosts, Incidents } from '../../controller/api/schemas.ts'
import { FINAL_STATES } from '../../controller/dispatch/action.ts'
import { eicar } from '../demo/harmless.ts'
import type { Deployment } from '../setup/deployment.ts'
import type { Operator } from '../setup/operator.ts'
import { type Bench, percentile, rounded } from './report.ts'
import { withDeployment } from './with-deployment.ts'

const ROUNDS = 60
const ROUND_WAIT_MS = 15_000
const POLL_MS = 10

interface Round {
  readonly writeToDetectionMs: number
  readonly writeToIncidentMs: number
  readonly writeToKilledMs: number
  readonly writerLivedMs: number
  readonly rightProcess: boolean
}

interface Written {
  readonly pid: number
  readonly writerPid: number
  readonly closedMs: number
  readonly writerLivedMs: number
}

export const detectBench: Bench = {
  name: 'detect',
  summary:
    'a file written by a process that lives under 5 ms: to detection, to incident, to killed; right process',
  async run(context) {
    const program = join(context.folder, 'write-and-linger')
    const source = join(import.meta.dirname, 'native', 'write-and-linger.c')
    execFileSync('gcc', ['-O2', '-static', '-Wall', '-Wextra', '-Werror', '-o', program, source])
    const rounds = await withDeployment(context, 'detect', {}, async (deployment, operator) => {
      const copy = join(deployment.folders.testRoot, 'write-and-linger')
      execFileSync('cp', [program, copy])
      await sleep(3_000)
      const done: Round[] = []
      for (let number = 0; number < ROUNDS; number += 1) {
        const round = await playRound(deployment, operator, copy, number)
        done.push(round)
        if (number % 10 === 9) context.say(`${number + 1} of ${ROUNDS} rounds`)
        await sleep(200)
      }
      return done
    })
    const of = (pick: (round: Round) => number) => rounds.map(pick)
    return {
      figures: {
        write_to_detection_p50_ms: percentile(
          of((round) => round.writeToDetectionMs),
          0.5,
        ),
        write_to_incident_p50_ms: percentile(
          of((round) => round.writeToIncidentMs),
          0.5,
        ),
        write_to_incident_p99_ms: percentile(
          of((round) => round.writeToIncidentMs),
          0.99,
        ),
        write_to_killed_p50_ms: percentile(
          of((round) => round.writeToKilledMs),
          0.5,
        ),
        right_process_share: rounds.filter((round) => round.rightProcess).length / rounds.length,
      },
      notes: [
        `${rounds.length} rounds; the writer lived ${rounded(
          percentile(
            of((round) => round.writerLivedMs),
            0.5,
          ),
        )} ms at the median, ${rounded(
          percentile(
            of((round) => round.writerLivedMs),
            0.99,
          ),
        )} ms at the 99th percentile`,
        'write: the file was closed (clock of the writer); detection: its time on the agent; incident: its opening on the controller; killed: the parent of the writer was gone, seen by the bench, after plan, signature and approval through the public API',
        'right process: entity, executable, command line and parent of the detection are those of the writer',
      ],
    }
  },
}

async function playRound(
  deployment: Deployment,
  operator: Operator,
  program: string,
  number: number,
): Promise<Round> {
  const folder = join(deployment.folders.testRoot, `round-${number}`)
  mkdirSync(folder)
  const file = join(folder, 'dropped.txt')
  const child = spawn(program, [file], { cwd: folder, detached: true, stdio: ['pipe', 'pipe', 'inherit'] })
  const exited = new Promise<number>((resolve) => child.once('exit', () => resolve(Date.now())))
  const line = new Promise<string>((resolve, reject) => {
    child.stdout.once('data', (chunk) => resolve(String(chunk)))
    child.once('error', reject)
    child.once('exit', () => reject(new Error('the writer ended early')))
  })
  try {
    child.stdin.end(eicar())
    const written: Written = JSON.parse(await line)
    const { incident, detection } = await awaitDetection(operator, file)
    const killedMs = await kill(operator, deployment, written, incident.id, exited)
    return {
      writeToDetectionMs: Date.parse(detection.detectedAt) - written.closedMs,
      writeToIncidentMs: Date.parse(incident.openedAt) - written.closedMs,
      writeToKilledMs: killedMs - written.closedMs,
      writerLivedMs: written.writerLivedMs,
      rightProcess: await isRightProcess(operator, detection.entityId, written, program, file),
    }
  } finally {
    // The bench started it, as the leader of a session of its own.
    child.kill('SIGKILL')
  }
}

async function awaitDetection(operator: Operator, file: string) {
  for (const untilMs = Date.now() + ROUND_WAIT_MS; Date.now() < untilMs; await sleep(POLL_MS)) {
    const { incidents } = await operator.get('/incidents', Incidents, { limit: 3 })
    for (const incident of incidents) {
      const { detections } = await operator.get(`/incidents/${incident.id}/detections`, Detections)
      const detection = detections.find((one) => one.filePath === file && one.engine === 'yara')
      if (detection) return { incident, detection }
    }
  }
  throw new Error(`no detection of ${file} within ${ROUND_WAIT_MS / 1_000} s`)
}

async function kill(
  operator: Operator,
  deployment: Deployment,
  written: Written,
  incidentId: string,
  exited: Promise<number>,
): Promise<number> {
  const { hosts } = await operator.get('/hosts', Hosts)
  const host = hosts.find((one) => one.agentId === deployment.agentFacts.agentId)
  const startTicks = readStat(written.pid)?.startTicks
  if (host?.bootId == null || startTicks === undefined) throw new Error('the process to kill is not there')
  await operator.act({
    action: 'killProcess',
    args: { tree: true },
    targets: [
      {
        agentId: host.agentId,
        target: {
          kind: 'process',
          pid: written.pid,
          startTicks,
          bootId: host.bootId,
          executableSha256: null,
        },
      },
    ],
    reason: 'detect bench',
    incidentId,
  })
  const killedMs = await Promise.race([exited, sleep(ROUND_WAIT_MS).then(() => null)])
  if (killedMs === null) {
    const states = (await operator.actions(incidentId)).map(
      (action) => `${action.state}: ${action.steps.at(-1)?.reason}`,
    )
    throw new Error(`the process was not killed; ${states.join(', ')}`)
  }
  for (const untilMs = Date.now() + ROUND_WAIT_MS; Date.now() < untilMs; await sleep(POLL_MS)) {
    const actions = await operator.actions(incidentId)
    if (actions.every((action) => FINAL_STATES.has(action.state))) return killedMs
  }
  throw new Error('the kill was not reported as done')
}

/** Against the exec event of the writer, as the store has it. */
async function isRightProcess(
  operator: Operator,
  entityId: string | null,
  written: Written,
  program: string,
  file: string,
): Promise<boolean> {
  if (entityId === null) return false
  for (const untilMs = Date.now() + 3_000; Date.now() < untilMs; await sleep(50)) {
    const { events } = await operator.get('/events', Events, { action: 'exec', entityId, limit: 10 })
    for (const { event } of events) {
      const fields: Readonly<Record<string, unknown>> = { ...event }
      if (fields['process.pid'] !== written.writerPid) continue
      return (
        fields['process.executable'] === program &&
        fields['process.command_line'] === `${program} ${file} --write` &&
        fields['process.parent.pid'] === written.pid
      )
    }
  }
  return false
}
