/**
 * A controller that is lost with its disk: backed up while an agent streams, wiped, restored. The agent sends
 * again what the backup lacks, nothing is issued before a person has confirmed, and no command of the lost time
 * is taken afterwards.
 */
import { copyFileSync, existsSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { startFakeController } from '../agent/uplink/testing/fake-controller.ts'
import { Actions } from '../controller/api/schemas.ts'
import { reviewRestoration } from '../controller/backup/confirm.ts'
import { paths } from '../controller/ceremony.ts'
import { FINAL_STATES } from '../controller/dispatch/action.ts'
import { openAuthority } from '../controller/pki/authority.ts'
import { openPkiDatabase } from '../controller/pki/database.ts'
import { createHolds } from '../controller/pki/holds.ts'
import { readPassphraseFile } from '../controller/pki/passphrase-file.ts'
import { createRegistry } from '../controller/pki/registry.ts'
import { openState } from '../controller/state/state.ts'
import { CONTROLLER, startAgent } from '../scripts/setup/deployment.ts'
import { type Operator, signIn } from '../scripts/setup/operator.ts'
import { runProgram } from '../scripts/setup/program.ts'
import { startLoad } from './testing/attack.ts'
import {
  awaitDelivery,
  balance,
  bufferedEvents,
  readBuffer,
  readMarks,
  readStored,
} from './testing/databases.ts'
import { WAIT } from './testing/observer.ts'
import { type Stage, startStage } from './testing/stage.ts'
import { createThief } from './testing/thief.ts'

let stage: Stage
let file: string
let passphraseFile: string
beforeAll(async () => {
  stage = await startStage()
  file = join(stage.folder, 'controller.backup')
  passphraseFile = join(stage.folder, 'backup-passphrase')
  writeFileSync(passphraseFile, 'kept far away from here\n', { mode: 0o600 })
}, 120_000)
afterAll(() => stage?.[Symbol.asyncDispose]())

const run = (...args: string[]) => runProgram(CONTROLLER, args, stage.controllerEnvironment)
const keyed = (...args: string[]) => run(...args, '--passphrase-file', passphraseFile)
const storedNow = () => {
  const { streamId } = readMarks(stage.folders.agent)
  return readStored(stage.folders.controller, stage.agentId, streamId)
}
const operatorAnew = (): Promise<Operator> =>
  signIn({
    name: 'tester',
    home: join(stage.folders.operators, 'tester'),
    apiUrl: stage.apiUrl,
    controllerEnvironment: stage.controllerEnvironment,
  })
const scan = (operator: Operator) =>
  operator.act({
    action: 'scanPath',
    targets: [{ agentId: stage.agentId, target: { kind: 'path', path: stage.folders.testRoot } }],
    args: { filesMax: 10 },
    reason: 'a test',
  })

let storedAtBackup = 0

test('a backup is made while the controller runs and an agent streams', async () => {
  await using _load = startLoad(stage.folder, 100)
  await vi.waitFor(() => expect(storedNow().length).toBeGreaterThan(100), WAIT)
  const made = await keyed('backup', file, '--events')
  expect(made).toMatchObject({ code: 0, stderr: '' })
  expect(made.stdout).toMatch(/epoch 1, keyset \d/)
  storedAtBackup = storedNow().length
  // What follows is in no backup.
  await vi.waitFor(() => expect(storedNow().length).toBeGreaterThan(storedAtBackup + 200), WAIT)
  const verified = await keyed('backup', 'verify', file)
  expect(verified.stdout).toMatch(/is whole/)
}, 120_000)

test('after a loss the agent sends again what the backup lacks: everything is in the store once', async () => {
  await awaitDelivery(stage.folders.agent, stage.folders.controller, stage.agentId)
  // Restored beside the one that is about to be lost, so that the agent has not long to wait.
  const { controller } = stage.folders
  const [lost, put] = [join(stage.folder, 'lost'), join(stage.folder, 'put-back')]
  const restored = await keyed('restore', file, '--into', put)
  expect(restored).toMatchObject({ code: 0, stderr: '' })
  await stage.killController()
  renameSync(controller, lost)
  renameSync(put, controller)
  const before = storedNow().length
  expect(before).toBeGreaterThan(100)
  expect(before).toBeLessThan(storedAtBackup + 200)
  expect(existsSync(paths(stage.folders.controller).passphrase)).toBe(false)
  copyFileSync(paths(lost).passphrase, paths(stage.folders.controller).passphrase)
  await stage.startController()
  // However far its pauses between attempts have grown.
  await vi.waitFor(
    () => {
      const { hosts } = reviewRestoration(paths(stage.folders.controller).state)
      expect(hosts.map(({ agentId }) => agentId)).toEqual([stage.agentId])
    },
    { timeout: 150_000, interval: 500 },
  )

  await awaitDelivery(stage.folders.agent, stage.folders.controller, stage.agentId)
  const made = readBuffer(stage.folders.agent)
  const stored = await awaitDelivery(stage.folders.agent, stage.folders.controller, stage.agentId)
  expect(balance(made, stored)).toMatchObject({ missing: [], storedTwice: [], different: [] })
  expect(stored.length).toBeGreaterThan(storedAtBackup + 200)
  // Nothing had to be given up: the agent still held all of it.
  expect(stored.filter(({ event }) => /had acknowledged/.test(String(event['event.reason'])))).toEqual([])
}, 300_000)

test('until it is confirmed a restored controller refuses commands, tokens and keysets, and says why', async () => {
  const why = /restored from the backup of .* confirm-restore/
  const operator = await operatorAnew()
  await expect(scan(operator)).rejects.toThrow(why)
  expect(await run('token')).toMatchObject({ code: 1, stderr: expect.stringMatching(why) })
  const key = ['--name', 'grace', '--public-key', '12'.repeat(32)]
  expect(await run('keyset', 'add', ...key)).toMatchObject({ code: 1, stderr: expect.stringMatching(why) })
  const review = await run('confirm-restore')
  expect(review.stdout).toContain(stage.agentId)
  expect(review.stdout).toContain('alert.controllerBehind')
  expect(await run('confirm-restore', '--by', 'ada')).toMatchObject({ code: 1 })

  const confirmed = await run('confirm-restore', '--by', 'ada', '--reason', 'the disk broke')
  expect(confirmed).toMatchObject({ code: 0, stderr: '' })
  // The controller that runs takes it at once, and the agent takes what comes in the new epoch.
  const asked = await scan(operator)
  const ended = await awaitEnd(operator, asked[0]?.id)
  expect(ended.state).toBe('done')
  expect((await run('token')).code).toBe(0)
}, 120_000)

/** As the stage's observer does, whose session ended with the restore. */
async function awaitEnd(operator: Operator, id: string | undefined) {
  return await vi.waitFor(async () => {
    const { actions } = await operator.get('/actions', Actions, { limit: 10 })
    const found = actions.find((action) => action.id === id)
    if (found === undefined || !FINAL_STATES.has(found.state)) throw new Error(`it is ${found?.state}`)
    return found
  }, WAIT)
}

test('what was signed in the lost epoch is refused by the agent, also under the right nonce', async () => {
  const files = paths(stage.folders.controller)
  const passphrase = readPassphraseFile(files.passphrase)
  if (!passphrase.ok) throw new Error(passphrase.error.reason)
  const opened = await openAuthority(files.authority, passphrase.value)
  if (!opened.ok) throw new Error(opened.error.reason)
  const authority = opened.value
  await stage.killAgent()
  await stage.killController()
  const state = openState(files.state)
  const { epoch } = state.counters.nextDelivery(stage.agentId)
  state.close()
  expect(epoch).toBeGreaterThan(1)

  const { rootPem, serverName, fleet, commandKey } = authority
  const server = authority.serverCredentials()
  const fake = await startFakeController({ rootPem, serverName, server, agent: server })
  const { agent } = await startAgent(
    stage.folders,
    { ...stage.ports, gateway: fake.port },
    { say: () => undefined },
  )
  try {
    await vi.waitFor(() => expect(fake.hellos).toHaveLength(1), WAIT)
    const hello = fake.hellos[0]
    const thief = createThief({
      fleet,
      agentId: stage.agentId,
      agentKeyFingerprint: keyFingerprintOf(files.pki),
      keysetVersion: hello?.keysetVersion ?? 0,
      sessionNonce: () => fake.hellos.at(-1)?.sessionNonce ?? '',
      commandKey,
    })
    const target = { kind: 'path', path: stage.folders.testRoot } as never
    const read = (wrapper: { epoch: number; sequence: number }) =>
      thief.command('scanPath', target, { filesMax: 10 }, [commandKey], { wrapper })
    const old = read({ epoch: 1, sequence: 1_000 })
    const present = read({ epoch, sequence: 1_000 })
    fake.send(old)
    fake.send(present)
    const told = (message: typeof old) => {
      const { commandId } = JSON.parse(Buffer.from(message.leaf, 'base64').toString()) as {
        commandId: string
      }
      return bufferedEvents(stage.folders.agent, 'action-state').filter(
        (event) => event['cordon.command.id'] === commandId,
      )
    }
    // The very same under the present epoch is taken: it is the epoch that was refused.
    await vi.waitFor(() => {
      expect(told(present).map((event) => event['cordon.command.state'])).toContain('done')
    }, WAIT)
    expect(told(old).map((event) => [event['cordon.command.state'], event['cordon.command.proof']])).toEqual([
      ['refused', { code: 'replay' }],
    ])
  } finally {
    await agent.stop()
    await fake.stop()
  }
}, 120_000)

function keyFingerprintOf(pkiPath: string): string {
  const database = openPkiDatabase(pkiPath)
  try {
    const holds = createHolds(database, Date.now)
    const registry = createRegistry({ database, clock: Date.now, alert: () => undefined, holds })
    return registry.get(stage.agentId)?.keyFingerprint ?? ''
  } finally {
    database.close()
  }
}
