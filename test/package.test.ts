/** The packed programs: one file each, which need nothing beside them and load nothing but their own. */
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { runDemo } from '../scripts/demo/demo.ts'
import { eicar } from '../scripts/demo/harmless.ts'
import { DIST, type Ran, ROOT, runFile, runProgram } from '../scripts/setup/program.ts'
import { PROGRAMS } from '../scripts/setup/programs.ts'
import { EICAR_SHA256 } from './testing/attack.ts'
import { WAIT } from './testing/observer.ts'
import { isRoot, type Stage, startStage } from './testing/stage.ts'

const programs = Object.keys(PROGRAMS)
/** Empty but for what a test puts there: nothing of the checkout is found from it. */
let folder: string
let stage: Stage
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-packed-'))
  // Made once by `npm test`; a run of this file alone makes them here.
  if (!process.env['CORDON_TEST_PACKAGED']) {
    expect(await runProgram('scripts/package.ts', [])).toMatchObject({ code: 0 })
  }
  vi.stubEnv('CORDON_TEST_PROGRAMS', 'dist')
  stage = await startStage()
}, 240_000)
afterAll(async () => {
  await stage?.[Symbol.asyncDispose]()
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true, force: true })
})

/** Runs a packed program in the empty folder, with its state there. */
function run(
  program: string,
  args: readonly string[],
  environment: Record<string, string> = {},
): Promise<Ran> {
  const state = { CORDON_AGENT_STATE: join(folder, 'state'), CORDON_CLI_HOME: join(folder, 'home') }
  return runFile(join(DIST, program), args, { ...state, ...environment }, { folder })
}

function versionLine(): string {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }
  return `${version}\n`
}

test.each(programs)('%s tells its version, with and without loading itself', async (program) => {
  for (const args of [['--version'], ['-V'], ['--version', '--version']]) {
    expect(await run(program, args)).toEqual({ code: 0, stdout: versionLine(), stderr: '' })
  }
})

test.each(programs)('%s tells its version where Node cannot start', async (program) => {
  // Room for the file and its libraries, and not for what V8 reserves.
  const limit = Math.ceil(statSync(join(DIST, program)).size / 1_024) + 100_000
  const limited = (option: string) => {
    return runFile(
      '/bin/sh',
      ['-c', `ulimit -c 0; ulimit -v ${limit}; exec "$0" "$1"`, join(DIST, program), option],
      {},
      { folder },
    )
  }
  expect((await limited('--help')).stdout).toBe('')
  for (const option of ['--version', '-V']) {
    expect(await limited(option)).toEqual({ code: 0, stdout: versionLine(), stderr: '' })
  }
})

test.each(programs)(
  'the bundle of %s tells its version, for machines where nothing else does',
  async (program) => {
    const bundle = join(ROOT, 'build', 'package', program, `${program}.cjs`)
    expect(await runFile(process.execPath, [bundle, '--version'], {}, { folder })).toEqual({
      code: 0,
      stdout: versionLine(),
      stderr: '',
    })
  },
)

test('the sums are of the finished files', async () => {
  const checked = await runFile('sha256sum', ['--check', '--quiet', 'SHA256SUMS'], {}, { folder: DIST })
  expect(checked).toEqual({ code: 0, stdout: '', stderr: '' })
})

test('each command of the agent explains itself', async () => {
  const all = await run('cordon-agent', ['--help'])
  const commands = [...all.stdout.matchAll(/^ {2}([a-z][a-z-]+)\b.* {2}/gm)].map(([, name]) => name ?? '')
  expect(commands).toEqual(expect.arrayContaining(['enroll', 'run', 'scan', 'status', 'verify']))
  for (const command of commands) {
    const one = await run('cordon-agent', [command, '--help'])
    expect(one).toMatchObject({ code: 0, stderr: '', stdout: expect.stringContaining('Usage:') })
  }
})

test('files are scanned by the child, which is the same file', async () => {
  const place = join(folder, 'to-scan')
  mkdirSync(place)
  writeFileSync(join(place, 'found.txt'), eicar())
  const scanned = await run('cordon-agent', ['scan', '--json', place])
  expect(scanned).toMatchObject({ code: 1, stderr: '' })
  const lines = scanned.stdout.trimEnd().split('\n')
  expect(lines.map((line) => JSON.parse(line).engine ?? JSON.parse(line).files).sort()).toEqual([
    1,
    'ioc',
    'yara',
  ])
})

test.each([
  ['NODE_OPTIONS', '--require=./foreign.cjs'],
  ['NODE_OPTIONS', '--inspect=0'],
])('%s=%s changes nothing', async (name, value) => {
  const mark = join(folder, 'foreign-ran')
  writeFileSync(join(folder, 'foreign.cjs'), `require('node:fs').writeFileSync(${JSON.stringify(mark)}, '')`)
  const ran = await run('cordon-agent', ['status', '--json'], { [name]: value })
  expect(ran.stdout).toBe('{"running":false,"enrolled":false}\n')
  expect(ran.stderr).not.toContain('Debugger')
  expect(existsSync(mark)).toBe(false)
})

test('a module that Node would run instead is refused', async () => {
  writeFileSync(join(folder, 'instead.cjs'), 'console.log(1)')
  const ran = await run('cordon-agent', ['status'], { NODE_REPL_EXTERNAL_MODULE: './instead.cjs' })
  expect(ran).toMatchObject({ code: 9, stdout: '' })
})

test.each(['--inspect', '--require=./foreign.cjs', '--eval=1'])('%s is no option', async (option) => {
  const ran = await run('cordon-agent', [option, 'status'])
  expect(ran).toMatchObject({ code: 2, stdout: '' })
  expect(ran.stderr).toContain('unknown option')
})

test('no signal opens an inspector', async () => {
  const { pid } = stage.agent()
  process.kill(pid, 'SIGUSR1')
  const status = await runFile(join(DIST, 'cordon-agent'), ['status', '--json'], stage.agentState, { folder })
  expect(JSON.parse(status.stdout)).toMatchObject({ running: true, pid })
  expect(readFileSync(join(stage.folders.logs, 'agent.log'), 'utf8')).not.toContain('Debugger')
})

test('what is found on the host is ended on an approved command, with the proof', async () => {
  const best = isRoot ? ['ebpf', 'fanotify'] : [expect.any(String)]
  expect(stage.sensors).toEqual(expect.arrayContaining(best))
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
})

test('an addon that somebody changed is not loaded but written anew, and told', async () => {
  await stage.killAgent()
  const addons = join(stage.folders.agent, 'addons')
  const names = readdirSync(addons)
  expect(names).toHaveLength(3)
  const before = new Map(names.map((name) => [name, readFileSync(join(addons, name))]))
  for (const name of names) {
    chmodSync(join(addons, name), 0o700)
    appendFileSync(join(addons, name), 'foreign')
  }
  await stage.startAgent()
  for (const [name, content] of before) expect(readFileSync(join(addons, name)).equals(content)).toBe(true)
  await vi.waitFor(async () => {
    const told = await stage.observer.events({ action: 'tamper' })
    const reasons = told.map(({ fields }) => String(fields['event.reason']))
    for (const name of names) expect(reasons.join('\n')).toContain(name)
  }, WAIT)
})
