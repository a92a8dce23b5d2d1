/** Files of a real host: copied to the controller through crashes of both ends, and out of quarantine as they were. */
import { createHash, randomBytes } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { loadBuiltAddon } from '../agent/native/testing/compile.ts'
import { runAt } from '../controller/cli/testing/operator.ts'
import { eicar } from '../scripts/demo/harmless.ts'
import { eicarTarget } from './testing/attack.ts'
import { WAIT } from './testing/observer.ts'
import { type Stage, startStage } from './testing/stage.ts'

const native = loadBuiltAddon()
const MEGABYTE = 1024 ** 2
const REASON = ['--reason', 'a test of files', '--yes']

let stage: Stage
let home: string
let folder: string
beforeAll(async () => {
  stage = await startStage()
  home = join(stage.folders.operators, 'tester')
  folder = join(stage.folders.testRoot, 'files')
  mkdirSync(folder)
  const password = readFileSync(join(home, 'password'), 'utf8')
  const login = await cordon(
    'auth',
    'login',
    '--url',
    stage.apiUrl,
    '--name',
    'tester',
    '--password-stdin',
  )(password)
  expect(login.exitCode, login.stderr).toBe(0)
}, 120_000)
afterAll(() => stage?.[Symbol.asyncDispose]())

const cordon =
  (...words: string[]) =>
  (piped = '') =>
    runAt(home, words, { piped })

test('a file arrives whole although the controller, and then the agent, is killed in the middle', async () => {
  const path = join(folder, 'large.bin')
  const block = randomBytes(MEGABYTE)
  const content = Buffer.concat(Array.from({ length: 64 }, () => block))
  content.writeUInt32BE(1, content.length - 4)
  writeFileSync(path, content)
  const [action] = await stage.operator.act({
    action: 'collectFile',
    args: { bytesMax: 1024 ** 3 },
    targets: [{ agentId: stage.agentId, target: { kind: 'evidenceFile', path, pathBytes: null } }],
    reason: 'a test of files',
  })
  const id = action?.id ?? ''
  const evidence = join(stage.folders.controller, 'evidence')
  const whole = join(evidence, createHash('sha256').update(content).digest('hex'))
  const arrived = () => (existsSync(whole) ? content.length : lstatSync(join(evidence, 'partial', id)).size)
  const until = (bytes: number) =>
    vi.waitFor(() => expect(arrived()).toBeGreaterThan(bytes), { timeout: 60_000, interval: 3 })
  await until(4 * MEGABYTE)
  await stage.killController()
  const atKill = arrived()
  await stage.startController()
  await until(Math.max(atKill, 12 * MEGABYTE))
  await stage.killAgent()
  await stage.startAgent()
  const ended = await vi.waitFor(
    async () => {
      const told = await cordon('action', 'get', id, '--json')()
      expect(told.json()).toMatchObject({ state: 'done' })
      return told.json()
    },
    { timeout: 90_000, interval: 300 },
  )
  expect(ended).toMatchObject({ progress: { receivedBytes: content.length, sizeBytes: content.length } })
  expect(readdirSync(join(evidence, 'partial'))).toEqual([])
  const saved = join(stage.folder, 'saved.bin')
  const got = await cordon('file', 'get', id, saved)()
  expect(got.exitCode, got.stderr).toBe(0)
  expect(readFileSync(saved).equals(content)).toBe(true)
  // What was fetched does not stay on the host.
  const left = readdirSync(join(stage.folders.agent, 'collected')).filter((name) => name.endsWith('.content'))
  expect(left).toEqual([])
}, 240_000)

test('what an agent may not give is refused with its reason, and nothing comes', async () => {
  const key = readdirSync(stage.folders.agent).find((name) => /key|pem|identity/.test(name)) ?? 'journal.db'
  const own = join(stage.folders.agent, key)
  const refused = await cordon('file', 'collect', stage.agentId, own, ...REASON, '--wait', '--json')()
  expect(refused.exitCode).toBe(1)
  expect(refused.json()).toMatchObject([{ state: 'refused' }])
  expect(JSON.stringify(refused.json())).toContain("agent's own folders")
})

/** All that comes back with a file. Reading it leaves its time of access alone. */
function likenessOf(path: string) {
  const { mode, uid, gid, size, mtimeNs } = lstatSync(path, { bigint: true })
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOATIME)
  try {
    const note = native.getAttribute(fd, Buffer.from('user.note'))?.toString()
    return { mode, uid, gid, size, mtimeNs, note, content: readFileSync(fd, 'latin1') }
  } finally {
    closeSync(fd)
  }
}

test('a quarantined file is listed, comes back as it was, and its quarantine is told as undone', async () => {
  const path = join(folder, 'false-alarm.txt')
  writeFileSync(path, eicar())
  const fd = openSync(path, 'r+')
  native.setAttribute(fd, Buffer.from('user.note'), Buffer.from('kept'))
  native.setTimes(fd, 1_500_000_000_111_222_333n, 1_600_000_000_444_555_666n)
  closeSync(fd)
  chmodSync(path, 0o4750)
  const before = likenessOf(path)
  const asked = await stage.operator.act({
    action: 'quarantineFile',
    args: {},
    targets: [{ agentId: stage.agentId, target: eicarTarget(path) }],
    reason: 'a test of files',
  })
  const taken = await stage.observer.endOf(asked)
  expect(taken.state, JSON.stringify(taken.steps)).toBe('done')
  expect(existsSync(path)).toBe(false)
  expect((await cordon('file', 'quarantined')()).stdout).toContain(taken.id.slice(0, 12))
  const restored = await cordon('file', 'restore', taken.id, ...REASON, '--wait', '--json')()
  expect(restored.exitCode, restored.stderr).toBe(0)
  expect(likenessOf(path)).toEqual(before)
  expect(readdirSync(join(stage.folders.agent, 'quarantine'))).toEqual([])
  await vi.waitFor(async () => {
    expect((await cordon('action', 'get', taken.id, '--json')()).json()).toMatchObject({ state: 'reverted' })
  }, WAIT)
  expect((await cordon('file', 'quarantined')()).stdout).not.toContain(taken.id.slice(0, 12))
})
