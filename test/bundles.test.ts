/** The bundled programs run: what esbuild made, started as a user would. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { buildPrograms } from '../scripts/build.ts'
import { runProgram, startProgram } from '../scripts/setup/program.ts'

const programs = 'build/programs'
let folder: string
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-bundles-'))
  await buildPrograms(() => undefined)
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

test.each(['cordon-agent', 'cordon-controller', 'cordon'])('%s tells its version', async (program) => {
  expect(await runProgram(`${programs}/${program}.cjs`, ['--version'])).toMatchObject({
    code: 0,
    stdout: '0.1.0\n',
  })
})

test('the bundled controller makes its authority, starts with its store, and stops', async () => {
  const environment = {
    CORDON_CONTROLLER_STATE: join(folder, 'controller'),
    CORDON_CONTROLLER_API_PORT: '0',
    CORDON_CONTROLLER_GATEWAY_PORT: '0',
    CORDON_CONTROLLER_GATEWAY_ADDRESS: '127.0.0.1',
    CORDON_CONTROLLER_ENROLMENT_PORT: '0',
  }
  const init = await runProgram(
    `${programs}/cordon-controller.cjs`,
    ['init', '--operator', `ada:${'ab'.repeat(32)}`],
    environment,
  )
  expect(init).toMatchObject({ code: 0 })
  const { program, readyLine } = await startProgram({
    name: 'cordon-controller',
    script: `${programs}/cordon-controller.cjs`,
    args: ['run', '--stop-with-stdin'],
    environment,
    logPath: join(folder, 'controller.log'),
    readyPrefix: 'READY ',
    readyTimeoutMs: 60_000,
  })
  try {
    const { apiUrl } = JSON.parse(readyLine) as { apiUrl: string }
    const health = await fetch(`${apiUrl}/api/v1/health`)
    expect(await health.json()).toEqual({ status: 'ok', problems: [] })
  } finally {
    await program.stop()
  }
  expect(await program.exited).toBe(0)
})

test('the bundled agent finds its rules and its scanner child', async () => {
  const rules = await runProgram(`${programs}/cordon-agent.cjs`, ['scan', join(folder), '--json'])
  const summary = JSON.parse(rules.stdout.trim().split('\n').at(-1) ?? '') as { files: number }
  expect(summary.files).toBeGreaterThan(0)
  expect(existsSync('build/content/yara')).toBe(true)
})
