/**
 * Telemetry lists from an operator's file to a real host: what a rule drops is not told and counted to the last
 * event, what is found in it is found all the same, and nothing but an operator's signature puts them in force.
 */
import { mkdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { telemetryRecordPath } from '../agent/actions/telemetry-record.ts'
import { runAt } from '../controller/cli/testing/operator.ts'
import { ActionPlan } from '../controller/dispatch/action.ts'
import { eicar } from '../scripts/demo/harmless.ts'
import { AGENT } from '../scripts/setup/deployment.ts'
import { runProgram } from '../scripts/setup/program.ts'
import { generateSigningKey, signBytes } from '../shared/node/signing.ts'
import { hashTelemetryLists } from '../shared/node/telemetry-hash.ts'
import type { TelemetryLists } from '../shared/protocol/telemetry-lists.ts'
import { WAIT } from './testing/observer.ts'
import { isRoot, type Stage, startStage } from './testing/stage.ts'

const DELETED = 25

let stage: Stage
let quiet: string
let loud: string
let lists: TelemetryLists
beforeAll(async () => {
  if (!isRoot) return
  stage = await startStage()
  quiet = join(stage.folders.testRoot, 'quiet')
  loud = join(stage.folders.testRoot, 'loud')
  for (const folder of [quiet, loud]) mkdirSync(folder)
  lists = { rules: [{ name: 'quiet folder', verdict: 'drop', pathPrefix: quiet }] }
  const password = readFileSync(join(stage.folders.operators, 'tester', 'password'), 'utf8')
  const words = ['--url', stage.apiUrl, '--name', 'tester', '--password-stdin']
  const login = await cordon(['auth', 'login', ...words], password)
  expect(login.exitCode, login.stderr).toBe(0)
}, 120_000)
afterAll(() => stage?.[Symbol.asyncDispose]())

const cordon = (words: readonly string[], piped = '') =>
  runAt(join(stage.folders.operators, 'tester'), words, { piped })

async function set(content: TelemetryLists): Promise<void> {
  const file = join(stage.folder, 'lists.json')
  writeFileSync(file, JSON.stringify(content))
  const words = ['--file', file, '--all', '--reason', 'a test of lists', '--yes', '--wait']
  const result = await cordon(['telemetry', 'set', ...words])
  expect(result.exitCode, result.stderr).toBe(0)
}

async function shown(): Promise<unknown> {
  const result = await cordon(['telemetry', 'show', '--host', stage.agentId, '--json'])
  expect(result.exitCode, result.stderr).toBe(0)
  return result.json()
}

const pathsOf = async (action: string, folder: string) =>
  // The host has other events, of which there may be more than one answer holds.
  (await stage.observer.events({ agentId: stage.agentId, action, contains: folder }))
    .map(({ fields }) => String(fields['file.path']))
    .filter((path) => path.startsWith(`${folder}/`))

/** Deletes files outside of the quiet folder until one is told: what was done before it has been seen. */
async function awaitSeen(name: string): Promise<void> {
  let tries = 0
  await vi.waitFor(
    async () => {
      tries += 1
      const path = join(loud, `${name}-${tries}`)
      writeFileSync(path, 'x')
      unlinkSync(path)
      const told = await pathsOf('file-deleted', loud)
      expect(told.some((one) => one.startsWith(join(loud, name)))).toBe(true)
    },
    { timeout: WAIT.timeout, interval: 500 },
  )
}

function makeFiles(prefix: string, count: number): readonly string[] {
  const paths = Array.from({ length: count }, (_, index) => join(quiet, `${prefix}-${index}`))
  for (const path of paths) writeFileSync(path, 'x')
  return paths
}

/** What the rule dropped, as it was told so far: the counts of each gap that names it. */
const dropped = async () =>
  (await stage.observer.events({ agentId: stage.agentId, action: 'gap' }))
    .filter(({ fields }) => String(fields['event.reason']).includes('"quiet folder"'))
    .map(({ fields }) => ({
      actions: fields['cordon.gap.actions'] as Record<string, number>,
      count: fields['cordon.gap.count'],
    }))

async function statusOf(): Promise<unknown> {
  const status = await runProgram(AGENT, ['status', '--json'], stage.agentState)
  return (JSON.parse(status.stdout) as { telemetryLists: unknown }).telemetryLists
}

test.skipIf(!isRoot)('lists that a stranger signs are not approved, and change nothing', async () => {
  const target = { kind: 'host', breakGlassHash: null }
  const plan = await stage.operator.send('/actions', ActionPlan, {
    action: 'setTelemetryLists',
    args: { lists },
    targets: [{ agentId: stage.agentId, target }],
    reason: 'a test of lists',
  })
  expect(plan).toMatchObject({ signaturesNeeded: 1, actions: [{ state: 'awaitingApproval' }] })
  const signature = signBytes('intent', Buffer.from(plan.intent, 'base64'), generateSigningKey())
  const approval = stage.operator.send(`/intents/${plan.intentId}/approvals`, ActionPlan, { signature })
  await expect(approval).rejects.toThrow('the key is not in the keyset in force')
  expect(await shown()).toMatchObject({ state: 'none' })
  expect(await statusOf()).toBeNull()
})

test.skipIf(!isRoot)(
  'what a rule drops stops, is counted to the last event, and hides no detection',
  async () => {
    const files = makeFiles('first', DELETED)
    await awaitSeen('before')
    expect((await pathsOf('file-created', quiet)).length).toBe(DELETED)

    await set(lists)
    const sha256 = hashTelemetryLists(lists)
    expect(await shown()).toMatchObject({ state: 'inForce', rules: lists.rules, sha256 })
    expect(await statusOf()).toMatchObject({ rules: 1, sha256, commandId: expect.any(String) })

    for (const path of files) unlinkSync(path)
    const found = join(quiet, 'found.txt')
    writeFileSync(found, eicar())
    // The scanner has a small share of one core, and what others write on this machine waits before it.
    await vi.waitFor(
      async () => {
        const detections = await stage.observer.detectionsBelow(quiet)
        expect(detections.map(({ filePath }) => filePath)).toContain(found)
      },
      { ...WAIT, timeout: 90_000 },
    )
    await awaitSeen('after')
    expect(await pathsOf('file-deleted', quiet)).toEqual([])
    expect(await pathsOf('file-created', quiet)).not.toContain(found)

    // What is counted is told when the agent stops, too.
    await stage.agent().stop()
    await stage.startAgent()
    const [told, another] = await vi.waitFor(async () => {
      const gaps = await dropped()
      expect(gaps).not.toEqual([])
      return gaps
    }, WAIT)
    expect(told?.actions['file-deleted']).toBe(DELETED)
    expect(told?.count).toBe(Object.values(told?.actions ?? {}).reduce((sum, count) => sum + count, 0))
    expect(another).toBeUndefined()
  },
  60_000,
)

test.skipIf(!isRoot)('lists are in force after a restart, until an operator removes them', async () => {
  expect(await statusOf()).toMatchObject({ rules: 1, sha256: hashTelemetryLists(lists) })
  await awaitSeen('started')
  const files = makeFiles('second', 3)
  for (const path of files) unlinkSync(path)
  await awaitSeen('restarted')
  expect(await pathsOf('file-deleted', quiet)).toEqual([])

  await set({ rules: [] })
  await vi.waitFor(async () => expect((await dropped()).at(-1)?.actions['file-deleted']).toBe(3), WAIT)
  expect(await shown()).toMatchObject({ state: 'none', rules: [] })
  expect(await statusOf()).toBeNull()
  const [path = ''] = makeFiles('third', 1)
  unlinkSync(path)
  await vi.waitFor(async () => expect(await pathsOf('file-deleted', quiet)).toEqual([path]), WAIT)
})

test.skipIf(!isRoot)(
  'lists that were altered on the host are told as tampering and not in force',
  async () => {
    await set(lists)
    await stage.killAgent()
    const file = telemetryRecordPath(stage.folders.agent)
    writeFileSync(file, readFileSync(file, 'utf8').replace(quiet, stage.folders.testRoot))
    await stage.startAgent()
    await vi.waitFor(async () => {
      const tampers = await stage.observer.events({ agentId: stage.agentId, action: 'tamper' })
      const reasons = tampers.map(({ fields }) => fields['event.reason'])
      expect(reasons).toContainEqual(expect.stringContaining('not those that operators signed'))
      expect(await shown()).toMatchObject({ state: 'none', reason: expect.stringContaining('not those') })
    }, WAIT)
    expect(await statusOf()).toBeNull()
  },
)
