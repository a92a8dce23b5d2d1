/** What a deployment leaves on disk: for its owner alone, and without secrets in its logs. */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { WAIT } from './testing/observer.ts'
import { type Stage, startStage } from './testing/stage.ts'

let stage: Stage
beforeAll(async () => {
  stage = await startStage({
    agentEnvironment: { CORDON_AGENT_LOG_LEVEL: 'debug', LD_PRELOAD: '/nonexistent/cordon-test.so' },
  })
}, 120_000)
afterAll(async () => {
  await stage?.[Symbol.asyncDispose]()
})

/** Everything below a folder, itself included. */
function walk(folder: string): string[] {
  return [
    folder,
    ...readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
  ]
}

test('what agent and controller keep is for their owner alone: files, folders and sockets', () => {
  const { agent, controller, logs } = stage.folders
  const found = [agent, controller, logs].flatMap(walk).map((path) => {
    const stat = statSync(path)
    return { path: relative(stage.folder, path), mode: stat.mode & 0o777, isFolder: stat.isDirectory() }
  })
  for (const expected of ['agent/buffer.db', 'agent/agent.sock', 'agent/journal.db', 'controller/state.db']) {
    expect(found.map(({ path }) => path)).toContain(expected)
  }
  expect(found.filter(({ mode, isFolder }) => (mode & 0o077) !== 0 || (isFolder && mode !== 0o700))).toEqual(
    [],
  )
})

test('no secret that stands in a state folder stands in a log', async () => {
  // Enrolled, connected, signed in: all that is told then has been told.
  await vi.waitFor(async () => {
    expect((await stage.observer.events({ action: 'agent-started' })).length).toBeGreaterThan(0)
  }, WAIT)
  const secrets = [stage.folders.agent, stage.folders.controller, stage.folders.operators]
    .flatMap(walk)
    .filter((path) => /(passphrase|password|contexts\.json|\.pem|keys\.json|key\.json)$/.test(path))
    .flatMap((path) => readFileSync(path, 'utf8').match(/[A-Za-z0-9+/_-]{32,}/g) ?? [])
  expect(secrets.length).toBeGreaterThan(20)
  const logs = readdirSync(stage.folders.logs).map((name) =>
    readFileSync(join(stage.folders.logs, name), 'utf8'),
  )
  expect(logs.join('').length).toBeGreaterThan(100)
  // Fingerprints and agent ids are no secrets, and hexadecimal; what is secret here is longer or base64.
  const told = secrets.filter((secret) => logs.some((log) => log.includes(secret)))
  expect(told).toEqual([])
  expect(logs.join('')).not.toMatch(/PRIVATE KEY/)
})

test('the signal at which Node opens an inspector opens none, and ends nobody', async () => {
  const programs = [stage.agent(), stage.controller()]
  for (const program of programs) program.kill('SIGUSR1')
  await stage.observer.events({ action: 'agent-started' })
  expect(programs.map((program) => program.running())).toEqual([true, true])
  for (const { logPath } of programs) expect(readFileSync(logPath, 'utf8')).not.toMatch(/debugger/i)
})

test('a library preloaded into the agent is told as tampering', async () => {
  await vi.waitFor(async () => {
    const told = await stage.observer.events({ action: 'tamper' })
    expect(told.map(({ fields }) => fields['event.reason'])).toEqual([
      expect.stringContaining('LD_PRELOAD=/nonexistent/cordon-test.so'),
    ])
  }, WAIT)
})
