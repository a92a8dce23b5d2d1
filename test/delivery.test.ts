/**
 * Hosts that are not there, or there twice: real programs, in a folder of their own. What takes minutes by its
 * nature (a frozen host, a killed one) runs with CORDON_TEST_LONG=1.
 */
import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { Audit, Contenders, Done, HostAnswer, SessionAnswer } from '../controller/api/schemas.ts'
import { createClient } from '../controller/cli/client.ts'
import { AGENT, CONTROLLER } from '../scripts/setup/deployment.ts'
import { type Program, runProgram, startProgram } from '../scripts/setup/program.ts'
import { awaitDelivery, balance, readBuffer } from './testing/databases.ts'
import { WAIT } from './testing/observer.ts'
import { type Stage, startStage } from './testing/stage.ts'

const isLong = process.env['CORDON_TEST_LONG'] === '1'
const PASSWORD = 'a password for tests alone'
let stage: Stage
let admin: ReturnType<typeof createClient>

beforeAll(async () => {
  stage = await startStage()
  const made = await runProgram(
    CONTROLLER,
    ['user', 'root', '--role', 'admin'],
    stage.controllerEnvironment,
    PASSWORD,
  )
  expect(made.code, made.stderr).toBe(0)
  const connect = (token: string | null) =>
    createClient({
      url: stage.apiUrl,
      token,
      timeoutMs: 30_000,
      signal: new AbortController().signal,
      warn: () => undefined,
    })
  const credentials = { name: 'root', password: PASSWORD, kind: 'bearer' }
  const session = await connect(null).send('POST', '/auth/login', SessionAnswer, credentials)
  admin = connect(session.token)
}, 120_000)
afterAll(() => stage?.[Symbol.asyncDispose]())

const host = () => admin.get(`/hosts/${stage.agentId}`, HostAnswer)
const audited = async (action: string) =>
  (await admin.get('/audit', Audit, { limit: 1_000 })).entries.filter((entry) => entry.action === action)
const stateIs = (state: string, timeout = WAIT.timeout) =>
  vi.waitFor(async () => expect((await host()).state).toBe(state), { ...WAIT, timeout })

async function agentStatus(stateFolder: string): Promise<string> {
  return (await runProgram(AGENT, ['status'], { CORDON_AGENT_STATE: stateFolder }, '')).stdout
}

async function expectNothingMissing(): Promise<void> {
  await awaitDelivery(stage.folders.agent, stage.folders.controller, stage.agentId)
  const made = readBuffer(stage.folders.agent)
  const stored = await awaitDelivery(stage.folders.agent, stage.folders.controller, stage.agentId)
  expect(balance(made, stored)).toMatchObject({ missing: [], storedTwice: [], different: [] })
}

test('an agent that is stopped in order says farewell, and is there again when it is started', async () => {
  await stateIs('connected')
  await stage.agent().stop()
  await stateIs('stopped')
  expect((await host()).notice).toMatch(/^stopped in order at /)
  await stage.startAgent()
  await stateIs('connected')
  expect((await host()).notice).toBeNull()
  await expectNothingMissing()
}, 60_000)

test('a cloned host: both are held and buffer on, a person readmits one, and nothing of it is lost', async () => {
  await stateIs('connected')
  const copyFolder = join(stage.folder, 'copy')
  await stage.killAgent()
  cpSync(stage.folders.agent, copyFolder, { recursive: true })
  await stage.startAgent()
  await stateIs('connected')
  let copy: Program | null = null
  try {
    copy = (
      await startProgram({
        name: 'cordon-agent',
        script: AGENT,
        args: ['run', '--stop-with-stdin'],
        environment: { CORDON_AGENT_STATE: copyFolder, CORDON_AGENT_TEST_ROOT: stage.folders.testRoot },
        logPath: join(stage.folders.logs, 'copy.log'),
        readyPrefix: 'READY ',
        readyTimeoutMs: 60_000,
      })
    ).program
    await stateIs('held')
    expect(await audited('alert.identityUsedTwice')).toHaveLength(1)
    expect(await audited('alert.identityHeld')).toHaveLength(1)
    for (const folder of [stage.folders.agent, copyFolder]) {
      await vi.waitFor(async () => expect(await agentStatus(folder)).toMatch(/^HELD /m), WAIT)
    }
    const { contenders } = await admin.get(`/hosts/${stage.agentId}/contenders`, Contenders)
    // The copy runs on the same host here: one boot.
    expect(contenders).toMatchObject([{ address: '127.0.0.1', bootId: (await host()).bootId }])
  } finally {
    copy?.kill('SIGKILL')
    await copy?.exited
  }
  // A held agent that comes again is told the same, and nothing of it is stored.
  await stage.killAgent()
  await stage.startAgent()
  await vi.waitFor(async () => expect(await agentStatus(stage.folders.agent)).toMatch(/^HELD /m), WAIT)
  expect((await host()).state).toBe('held')

  const certificate = (await host()).keyFingerprint
  const answer = { reason: 'the copy is switched off', bootId: null }
  await admin.send('POST', `/hosts/${stage.agentId}/readmit`, Done, answer)
  expect(await audited('host.readmit')).toMatchObject([{ by: 'root', detail: /the copy is switched off/ }])
  await stage.killAgent()
  await stage.startAgent()
  await stateIs('connected')
  // It renewed at once: the key that was copied is worth nothing any more.
  await vi.waitFor(async () => expect((await host()).keyFingerprint).not.toBe(certificate), WAIT)
  await stateIs('connected')
  await expectNothingMissing()
}, 180_000)

if (isLong) {
  test('a frozen host is found dead within 45 s, told of within 90 s, and told when it is back', async () => {
    await stateIs('connected')
    const frozenMs = Date.now()
    process.kill(stage.agent().pid, 'SIGSTOP')
    try {
      await stateIs('silent', 60_000)
      expect(Date.now() - frozenMs).toBeLessThan(47_000)
      await vi.waitFor(async () => expect(await audited('alert.hostSilent')).toHaveLength(1), {
        timeout: 100_000,
        interval: 500,
      })
      expect(Date.now() - frozenMs).toBeLessThan(91_000)
    } finally {
      process.kill(stage.agent().pid, 'SIGCONT')
    }
    await stateIs('connected', 90_000)
    await vi.waitFor(async () => expect(await audited('alert.hostBack')).toHaveLength(1), WAIT)
    await expectNothingMissing()
  }, 300_000)

  test('a host that was killed while the controller was away is told of within 90 s of its start', async () => {
    await stateIs('connected')
    await stage.killController()
    await stage.killAgent()
    await stage.startController()
    const startedMs = Date.now()
    const before = (await audited('alert.hostSilent')).length
    await vi.waitFor(async () => expect(await audited('alert.hostSilent')).toHaveLength(before + 1), {
      timeout: 120_000,
      interval: 500,
    })
    expect(Date.now() - startedMs).toBeLessThan(92_000)
    await stage.startAgent()
    await stateIs('connected')
    await expectNothingMissing()
  }, 300_000)
}
