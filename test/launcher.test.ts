/** `npm start` as a person uses it, on the fallback sensors: the demo, a second instance, Ctrl-C, a new start. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { listPids } from '../agent/platform/linux/proc.ts'
import { readStat } from '../agent/platform/linux/processes.ts'
import { controllerEnvironment, foldersOf } from '../scripts/setup/deployment.ts'
import { type Operator, signIn } from '../scripts/setup/operator.ts'
import { ROOT } from '../scripts/setup/program.ts'
import { createObserver, WAIT } from './testing/observer.ts'

let state: string
const started: Launched[] = []
beforeAll(() => {
  // Not below /tmp, which the fallback watches: the controller's own files would be seen there.
  mkdirSync(join(ROOT, 'build'), { recursive: true })
  state = mkdtempSync(join(ROOT, 'build', 'test-state-'))
})
afterAll(async () => {
  for (const launched of started) await launched.end()
  rmSync(state, { recursive: true, force: true })
})

interface Launched {
  readonly pid: number
  readonly lines: string[]
  readonly exited: Promise<number | null>
  readonly child: ChildProcess
  said(pattern: RegExp): Promise<RegExpExecArray>
  /** As a terminal sends it: to the whole group in the foreground. */
  interrupt(): void
  end(): Promise<void>
}

function launch(...args: string[]): Launched {
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', join(ROOT, 'scripts', 'start.ts'), '--state', state, ...args],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
      // The launcher runs the source, whatever the other tests run.
      env: { ...process.env, CORDON_AGENT_SENSORS: 'polling', CORDON_TEST_PROGRAMS: '' },
      detached: true,
    },
  )
  const lines: string[] = []
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => lines.push(line))
  }
  const exited = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)))
  const pid = child.pid ?? 0
  const launched: Launched = {
    pid,
    lines,
    exited,
    child,
    said: (pattern) =>
      vi.waitFor(
        () => {
          const match = lines.map((line) => pattern.exec(line)).find((found) => found !== null)
          if (!match) throw new Error(`${pattern} was not said:\n${lines.join('\n')}`)
          return match
        },
        { timeout: 60_000, interval: 50 },
      ),
    interrupt: () => process.kill(-pid, 'SIGINT'),
    async end() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
      await exited
    },
  }
  started.push(launched)
  return launched
}

/** Descendants of a process, by pid and start. */
function descendantsOf(pid: number): readonly { readonly pid: number; readonly startTicks: number }[] {
  const stats = listPids().flatMap((one) => {
    const stat = readStat(one)
    return stat === null ? [] : [{ pid: one, parentPid: stat.parentPid, startTicks: stat.startTicks }]
  })
  const found: { pid: number; startTicks: number }[] = []
  const parents = new Set([pid])
  for (let grown = true; grown; ) {
    grown = false
    for (const { pid: child, parentPid, startTicks } of stats) {
      if (!parents.has(parentPid) || parents.has(child)) continue
      parents.add(child)
      found.push({ pid: child, startTicks })
      grown = true
    }
  }
  return found
}

const operator = async (apiUrl: string): Promise<Operator> => {
  const folders = foldersOf(state)
  const ports = JSON.parse(readFileSync(join(state, 'ports.json'), 'utf8'))
  const environment = controllerEnvironment(folders, ports, {})
  const home = join(folders.operators, 'operator')
  return await signIn({ name: 'operator', home, apiUrl, controllerEnvironment: environment })
}

let incidentId: string

test('on the fallback sensors the demo ends contained, and says so in its last line and its status', async () => {
  const launched = launch('--demo', '--exit')
  const code = await launched.exited
  const last = launched.lines.at(-1) ?? ''
  expect(last, launched.lines.join('\n')).toMatch(/^\{/)
  const result = JSON.parse(last)
  expect(result, launched.lines.join('\n')).toMatchObject({
    demo: 'contained',
    problem: null,
    incident: { status: 'contained' },
  })
  expect(launched.lines.join('\n')).toContain('fallback sensors')
  expect(code).toBe(0)
  incidentId = result.incident.id
}, 240_000)

test('started again it goes on with its data, a second instance is refused, and Ctrl-C leaves nothing behind', async () => {
  const first = launch()
  const [, apiUrl = ''] = await first.said(/^READY (\S+)$/)
  await first.said(/Ctrl-C stops everything/)
  expect(first.lines.join('\n')).not.toContain('first start')
  expect(await createObserver(await operator(apiUrl)).incident(incidentId)).toMatchObject({
    status: 'contained',
  })

  const second = launch()
  expect(await second.exited).toBe(1)
  expect(second.lines).toHaveLength(1)
  expect(second.lines[0]).toContain('already running with this state')
  expect(second.lines[0]).toContain(apiUrl)

  const family = descendantsOf(first.pid)
  // Controller, agent and the agent's scanner at least.
  expect(family.length).toBeGreaterThanOrEqual(3)
  const interruptedMs = performance.now()
  first.interrupt()
  expect(await first.exited).toBe(0)
  expect(performance.now() - interruptedMs).toBeLessThan(5_000)
  await vi.waitFor(() => {
    const left = family.filter(({ pid, startTicks }) => readStat(pid)?.startTicks === startTicks)
    expect(left).toEqual([])
  }, WAIT)

  const third = launch()
  const [, again = ''] = await third.said(/^READY (\S+)$/)
  expect(again).toBe(apiUrl)
  await third.end()
}, 240_000)
