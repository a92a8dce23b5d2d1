/** One real deployment from end to end: what happens on the host is seen, grouped, acted on and proved. */
import { spawn, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { compileTinyExit } from '../agent/native/testing/compile.ts'
import { runDemo } from '../scripts/demo/demo.ts'
import { eicar } from '../scripts/demo/harmless.ts'
import { AGENT } from '../scripts/setup/deployment.ts'
import { runProgram } from '../scripts/setup/program.ts'
import { compileWriter, EICAR_SHA256, eicarTarget, startDropper, startSleeper } from './testing/attack.ts'
import { WAIT } from './testing/observer.ts'
import { isRoot, type Stage, startStage } from './testing/stage.ts'

/** What the test file is found by. */
const RULES = ['its hash', 'its content']
const REASON = 'a test of the pipeline'

let stage: Stage
beforeAll(async () => {
  stage = await startStage()
}, 120_000)
afterAll(() => stage?.[Symbol.asyncDispose]())

const act = (request: Omit<Parameters<Stage['operator']['act']>[0], 'reason'>) =>
  stage.operator.act({ ...request, reason: REASON })
const quarantine = (path: string, incidentId: string) =>
  act({
    action: 'quarantineFile',
    args: {},
    targets: [{ agentId: stage.agentId, target: eicarTarget(path) }],
    incidentId,
  })

test('the best sensors that this user may have are in force', () => {
  const best = isRoot ? ['ebpf', 'fanotify'] : [expect.any(String)]
  expect(stage.sensors).toEqual(expect.arrayContaining(best))
})

test('the demo ends contained, with a proof of each action', async () => {
  const lines: string[] = []
  const result = await runDemo({
    operator: stage.operator,
    testRoot: stage.folders.testRoot,
    say: (line) => lines.push(line),
  })
  expect(result, lines.join('\n')).toMatchObject({
    demo: 'contained',
    problem: null,
    incident: { status: 'contained' },
    proofs: { killProcess: { gone: true }, quarantineFile: { contentHash: EICAR_SHA256 } },
  })
  expect(result.actions.map(({ action, state }) => `${action} ${state}`).sort()).toEqual([
    'killProcess done',
    'quarantineFile done',
  ])
  expect(result.detections.length).toBeGreaterThanOrEqual(isRoot ? 2 : 1)
})

test.skipIf(!isRoot)(
  'a process that lives for microseconds is stored with its arguments, parent and exit code',
  async () => {
    const program = compileTinyExit(stage.folder, 'short-lived')
    const odd = 'two words, "quotes" and ünïcode'
    expect(spawnSync(program, [odd, '--exit=3']).status).toBe(3)
    const [exec] = await vi.waitFor(async () => {
      const found = (await stage.observer.events({ action: 'exec', contains: program })).filter(
        ({ fields }) => fields['process.executable'] === program,
      )
      expect(found).toHaveLength(1)
      return found
    }, WAIT)
    expect(exec?.fields).toMatchObject({
      'process.args_count': 3,
      'process.parent.pid': process.pid,
      'process.parent.executable': process.execPath,
      'user.id': '0',
    })
    expect(exec?.fields['process.command_line']).toContain('two words')
    expect(exec?.fields['process.command_line']).toContain('ünïcode')
    const entityId = String(exec?.fields['process.entity_id'])
    expect(String(exec?.fields['process.parent.entity_id'])).toContain(`.${process.pid}.`)
    await vi.waitFor(async () => {
      const ends = await stage.observer.events({ action: 'exit', entityId })
      expect(ends.map(({ fields }) => fields['process.exit_code'])).toEqual([3])
    }, WAIT)
  },
)

test.skipIf(!isRoot)(
  'a file written by a process that is gone before anyone can look is detected with that process',
  async () => {
    const folder = join(stage.folders.testRoot, 'short-lived-writer')
    mkdirSync(folder)
    const program = join(folder, 'writer')
    copyFileSync(compileWriter(stage.folder), program)
    const file = join(folder, 'dropped.txt')
    const child = spawn(program, [file], { cwd: folder, detached: true, stdio: ['pipe', 'pipe', 'inherit'] })
    try {
      const line = new Promise<string>((resolve) =>
        child.stdout.once('data', (data) => resolve(String(data))),
      )
      child.stdin.end(eicar())
      const written: { pid: number; writerPid: number } = JSON.parse(await line)
      const detection = await stage.observer.detectionOf(file)
      expect(detection).toMatchObject({
        agentId: stage.agentId,
        fileSha256: EICAR_SHA256,
        commandLine: `${program} ${file} --write`,
        parentExecutable: program,
      })
      expect(detection.entityId).toContain(`.${written.writerPid}.`)
      const [stored] = await stage.observer.events({ action: 'detection', path: file })
      expect(stored?.fields).toMatchObject({
        'process.pid': written.writerPid,
        'process.parent.pid': written.pid,
      })
    } finally {
      child.kill('SIGKILL')
    }
  },
)

test.skipIf(!isRoot)(
  'a process that writes its file again after the quarantine is found again, and opens the incident again',
  async () => {
    using dropper = startDropper(stage.folders.testRoot, 'stubborn')
    const path = await dropper.drop('again.txt')
    const detection = await stage.observer.detectionOf(path)
    const done = await stage.observer.endOf(await quarantine(path, detection.incidentId))
    expect(done.state).toBe('done')
    expect(existsSync(path)).toBe(false)
    const contained = await vi.waitFor(async () => {
      const incident = await stage.observer.incident(detection.incidentId)
      expect(incident.status).toBe('contained')
      return incident
    }, WAIT)
    // What happens within two seconds of the last finding is the same burst.
    await vi.waitFor(() => expect(Date.now() - Date.parse(detection.detectedAt)).toBeGreaterThan(2_500), WAIT)
    await dropper.drop('again.txt')
    await vi.waitFor(async () => {
      expect((await stage.observer.incident(contained.id)).status).toBe('open')
    }, WAIT)
    await vi.waitFor(async () => {
      const found = await stage.observer.detectionsBelow(dropper.folder)
      expect(found.map(({ incidentId, repeats }) => ({ incidentId, repeats }))).toEqual(
        RULES.map(() => ({ incidentId: contained.id, repeats: 1 })),
      )
    }, WAIT)
    const second = await stage.observer.endOf(await quarantine(path, contained.id))
    expect(second.state).toBe('done')
    await vi.waitFor(async () => {
      expect((await stage.observer.incident(contained.id)).status).toBe('contained')
    }, WAIT)
  },
)

test.skipIf(!isRoot)(
  'the same file dropped by another process after the quarantine is an incident of its own',
  async () => {
    using first = startDropper(stage.folders.testRoot, 'shared')
    const path = await first.drop('same.txt')
    const before = await stage.observer.detectionOf(path)
    expect((await stage.observer.endOf(await quarantine(path, before.incidentId))).state).toBe('done')
    using second = startDropper(stage.folders.testRoot, 'shared')
    await second.drop('same.txt')
    const detections = await vi.waitFor(async () => {
      const all = await stage.observer.detectionsBelow(second.folder)
      const found = all.filter(({ entityId }) => entityId?.includes(`.${second.pid}.`))
      expect(found).toHaveLength(RULES.length)
      return found
    }, WAIT)
    expect(new Set(detections.map(({ incidentId }) => incidentId)).size).toBe(1)
    expect(detections[0]?.incidentId).not.toBe(before.incidentId)
    expect((await stage.observer.incident(before.incidentId)).status).toBe('contained')
  },
)

test('a scan asked for by an operator finds what lies in a folder, without an approval', async () => {
  using dropper = startDropper(stage.folders.testRoot, 'to-scan')
  const path = await dropper.drop('lying.txt')
  const asked = await act({
    action: 'scanPath',
    args: { filesMax: 100 },
    targets: [{ agentId: stage.agentId, target: { kind: 'path', path: dropper.folder } }],
  })
  const ended = await stage.observer.endOf(asked)
  expect(ended).toMatchObject({ state: 'done', class: 'R' })
  expect(ended.steps.at(-1)?.proof).toMatchObject({ files: 1, matches: RULES.length })
  await stage.observer.detectionOf(path)
  expect(existsSync(path)).toBe(true)
})

test('a kill outside the test root is refused by the agent with the setting that forbids it', async () => {
  using bystander = startSleeper('/')
  const asked = await act({
    action: 'killProcess',
    args: { tree: false },
    targets: [{ agentId: stage.agentId, target: bystander.target }],
  })
  const ended = await stage.observer.endOf(asked)
  expect(ended.state).toBe('refused')
  expect(ended.steps.at(-1)).toMatchObject({ by: 'agent', reason: expect.stringContaining('testRoot') })
  expect(bystander.alive()).toBe(true)
})

test('the agent tells about itself, its buffer is whole, and it scans on demand', async () => {
  const status = await runProgram(AGENT, ['status', '--json'], stage.agentState)
  expect(status.code).toBe(0)
  expect(JSON.parse(status.stdout)).toMatchObject({
    running: true,
    agentId: stage.agentId,
    pid: stage.agent().pid,
    connection: { state: 'connected' },
    events: { dropped: 0, trouble: null },
    interlock: expect.stringContaining(stage.folders.testRoot),
  })
  const verified = await runProgram(AGENT, ['verify', '--json'], stage.agentState)
  expect(JSON.parse(verified.stdout)).toMatchObject({ kind: 'whole', rows: expect.any(Number) })
  expect(verified.code).toBe(0)

  using dropper = startDropper(stage.folders.testRoot, 'on-demand')
  const path = await dropper.drop('found.txt')
  const scanned = await runProgram(AGENT, ['scan', '--json', dropper.folder], stage.agentState)
  expect(scanned.code).toBe(1)
  const lines = scanned.stdout.trimEnd().split('\n')
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([
    ...RULES.map(() => ({ kind: 'match', path, sha256: EICAR_SHA256 })),
    { kind: 'summary', files: 1, matches: RULES.length },
  ])
})
