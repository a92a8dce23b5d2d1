import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type ProcessFacts, readFacts } from '../platform/linux/processes.ts'
import { createInterlock, type InterlockOptions } from './interlock.ts'
import { createTestProcesses } from './testing/test-processes.ts'

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-interlock-'))
  for (const name of ['test', 'test-evil', 'test/inner']) mkdirSync(join(folder, name))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const interlock = (options: Partial<InterlockOptions> = {}) =>
  createInterlock({
    installedAsService: false,
    testRoot: join(folder, 'test'),
    testCgroup: null,
    recordedNetworkNamespace: null,
    ...options,
  })

const facts = (changed: Partial<ProcessFacts> = {}): ProcessFacts => ({
  pid: 4_000_000,
  startTicks: 5,
  name: 'x',
  state: 'S',
  parentPid: 1,
  sessionId: 4_000_000,
  threads: 1,
  kernelThread: false,
  exiting: false,
  executable: Buffer.from('/usr/bin/x'),
  workingDirectory: Buffer.from('/'),
  cgroups: ['/'],
  sameMounts: true,
  ancestors: [1],
  ...changed,
})
const at = (path: string) => Buffer.from(path.replace('ROOT', folder))

test.each([
  ['its executable is in the test root', { executable: 'ROOT/test/x' }, true],
  ['its executable is deeper in the test root', { executable: 'ROOT/test/inner/x' }, true],
  ['its working directory is the test root', { workingDirectory: 'ROOT/test' }, true],
  ['its working directory is in the test root', { workingDirectory: 'ROOT/test/inner' }, true],
  ['only the beginning of a name is the test root', { workingDirectory: 'ROOT/test-evil' }, false],
  ['its executable is beside the test root', { executable: 'ROOT/test-evil/x' }, false],
  ['its working directory is above the test root', { workingDirectory: 'ROOT' }, false],
  ['it climbs out with ..', { workingDirectory: 'ROOT/test/../test-evil' }, false],
  ['a .. that leads back in is not plain', { workingDirectory: 'ROOT/test/../test' }, false],
  ['its path is relative', { executable: 'test/x' }, false],
  ['its path cannot be reached', { executable: '(unreachable)ROOT/test/x' }, false],
  ['neither path may be read', {}, false],
])('a process is judged by component: %s', (_what, paths: Record<string, string>, permitted) => {
  const given = Object.fromEntries(Object.entries(paths).map(([name, path]) => [name, at(path)]))
  const judged = facts({ executable: null, workingDirectory: null, ...given })
  expect(interlock().permitsProcess(judged).ok).toBe(permitted)
})

test('a path of another mount namespace counts for nothing', () => {
  const inside = facts({ executable: at('ROOT/test/x'), sameMounts: false })
  expect(interlock().permitsProcess(inside).ok).toBe(false)
})

test.each([
  ['/cordon-test', '/cordon-test', true],
  ['/cordon-test', '/cordon-test/a/b', true],
  ['cordon-test', '/cordon-test/a', true],
  ['/cordon-test', '/cordon-test-evil', false],
  ['/cordon-test', '/', false],
  ['/cordon-test', '/a/cordon-test', false],
  ['/cordon-test', '/cordon-test/../other', false],
  ['/cordon-test', '/../cordon-test', false],
  ['/', '/anything', false],
  ['', '/anything', false],
  ['/a/..', '/anything', false],
])('with the test cgroup %j a process in %j: %s', (testCgroup, path, permitted) => {
  expect(interlock({ testRoot: null, testCgroup }).permitsProcess(facts({ cgroups: ['/', path] })).ok).toBe(
    permitted,
  )
})

test.each([true, false])(
  'what no action ever touches, installed as a service: %s',
  async (installedAsService) => {
    await using processes = createTestProcesses()
    const guard = interlock({ installedAsService, testRoot: tmpdir() })
    const everywhere = { workingDirectory: Buffer.from(tmpdir()) }
    const reasonFor = (changed: Partial<ProcessFacts>) => {
      const permission = guard.permitsProcess(facts({ ...everywhere, ...changed }))
      return permission.ok ? 'permitted' : permission.reason
    }
    expect(reasonFor({})).toBe('permitted')
    expect(reasonFor({ pid: 1, ancestors: [] })).toMatch(/first process/)
    expect(reasonFor({ kernelThread: true })).toMatch(/kernel/)
    expect(reasonFor({ pid: process.pid })).toMatch(/agent itself/)
    expect(reasonFor({ pid: process.ppid })).toMatch(/ancestor of the agent/)
    const child = readFacts(await processes.start('/bin/sleep', ['60'], { cwd: tmpdir() }))
    expect(child && guard.permitsProcess(child)).toMatchObject({ ok: false, reason: /process of the agent/ })
  },
)

test('the kernel itself says so of its own threads', () => {
  const kernel = readFacts(2)
  if (kernel?.kernelThread)
    expect(interlock({ installedAsService: true }).permitsProcess(kernel).ok).toBe(false)
})

test('a working directory that was entered through a symlink is where it leads to', async () => {
  await using processes = createTestProcesses()
  const agent = await processes.start('/bin/sleep', ['60'])
  const guard = interlock({ agentPid: agent })
  symlinkSync(join(folder, 'test-evil'), join(folder, 'test/way-out'))
  symlinkSync(join(folder, 'test'), join(folder, 'way-in'))
  const outside = readFacts(
    await processes.start('/bin/sleep', ['60'], { cwd: join(folder, 'test/way-out') }),
  )
  const inside = readFacts(await processes.start('/bin/sleep', ['60'], { cwd: join(folder, 'way-in/inner') }))
  expect(outside && guard.permitsProcess(outside).ok).toBe(false)
  expect(inside && guard.permitsProcess(inside)).toEqual({ ok: true })
})

test('a test root that is a symlink is where it led at the start', () => {
  symlinkSync(join(folder, 'test'), join(folder, 'root-link'))
  const guard = interlock({ testRoot: join(folder, 'root-link') })
  rmSync(join(folder, 'root-link'))
  symlinkSync('/', join(folder, 'root-link'))
  expect(guard.permitsFile(at('ROOT/test/f')).ok).toBe(true)
  expect(guard.permitsFile('/etc/passwd').ok).toBe(false)
})

test.each([
  ['ROOT/test/f', true],
  ['ROOT/test/inner/f', true],
  ['ROOT/test', false],
  ['ROOT/test-evil/f', false],
  ['ROOT/test/../f', false],
  ['test/f', false],
  ['/etc/passwd', false],
])('the file %s: permitted %s', (path, permitted) => {
  expect(interlock().permitsFile(at(path)).ok).toBe(permitted)
})

test('a name that is not UTF-8 is judged by its bytes', () => {
  expect(interlock().permitsFile(Buffer.concat([at('ROOT/test/'), Buffer.from([0xff, 0xfe])])).ok).toBe(true)
})

test.each([null, '/', '/does/not/exist'])(
  'with the test root %s nothing is inside, and the refusal says why',
  (testRoot) => {
    const guard = interlock({ testRoot })
    const process = guard.permitsProcess(facts({ executable: Buffer.from('/usr/bin/x') }))
    expect(process).toMatchObject({ ok: false, reason: /testRoot.*install it as a service/ })
    expect(guard.permitsFile('/usr/bin/x')).toMatchObject({ ok: false, reason: /testRoot/ })
  },
)

test('isolation is refused in the recorded network namespace, and when none was recorded', () => {
  const guard = interlock({ recordedNetworkNamespace: 'net:[4026531840]' })
  expect(guard.permitsIsolation('net:[4026531840]')).toMatchObject({
    ok: false,
    reason: /launcherNetworkNamespace.*network namespace of its own/,
  })
  expect(guard.permitsIsolation('net:[4026532999]')).toEqual({ ok: true })
  expect(guard.permitsIsolation('')).toMatchObject({ ok: false })
  expect(interlock().permitsIsolation('net:[4026532999]')).toMatchObject({ ok: false })
})

test('an agent that is installed as a service is bound by none of the test settings', () => {
  const guard = interlock({ installedAsService: true, testRoot: null })
  expect(guard.permitsProcess(facts())).toEqual({ ok: true })
  expect(guard.permitsFile('/etc/passwd')).toEqual({ ok: true })
  expect(guard.permitsIsolation('net:[4026531840]')).toEqual({ ok: true })
})
