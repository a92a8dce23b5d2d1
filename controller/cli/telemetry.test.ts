import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { hashTelemetryLists } from '../../shared/node/telemetry-hash.ts'
import type { TelemetryLists } from '../../shared/protocol/telemetry-lists.ts'
import { AGENT_ID, AT, OTHER_AGENT_ID } from '../api/testing/fixtures.ts'
import { type MemoryController, startMemoryController } from '../api/testing/memory-controller.ts'
import type { Action, ActionState, ActionStep } from '../dispatch/action.ts'
import { createOperator, type Operator } from './testing/operator.ts'

const LISTS: TelemetryLists = {
  rules: [
    { name: 'build', verdict: 'drop', actions: ['file-created', 'file-modified'], pathPrefix: '/var/build' },
    { name: 'backup', verdict: 'keep', executable: '/usr/bin/backup', userId: 0 },
  ],
}

let controller: MemoryController
let operator: Operator
let folder: string
let usual: MemoryController['services']['actions']['list']
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-telemetry-'))
  controller = await startMemoryController()
  operator = await createOperator(controller)
  usual = controller.services.actions.list
})
afterEach(() => {
  Object.assign(controller.services.actions, { list: usual })
})
afterAll(async () => {
  operator[Symbol.dispose]()
  await controller[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
})

function fileOf(content: unknown): string {
  const path = join(folder, 'lists.json')
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content, null, 2))
  return path
}

const set = (content: unknown, ...words: string[]) =>
  operator.run(['telemetry', 'set', '--file', fileOf(content), '--reason', 'CHG-7', ...words])

test('lists are signed for each host that is named, and each rule is shown before', async () => {
  const result = await set(LISTS, '--host', 'web-1', OTHER_AGENT_ID, '--yes', '--wait', '--json')
  expect(result.exitCode, result.stderr).toBe(0)
  expect(result.json()).toMatchObject([
    { action: 'setTelemetryLists', class: 'C', agentId: AGENT_ID, args: { lists: LISTS }, state: 'done' },
    { action: 'setTelemetryLists', class: 'C', agentId: OTHER_AGENT_ID, state: 'done' },
  ])
  expect(result.stderr).toMatch(/To be signed {2}setTelemetryLists, class C/)
  expect(result.stderr).toContain(`lists of 2 rules, SHA-256 ${hashTelemetryLists(LISTS)}`)
  expect(result.stderr).toContain(' 1  drop    build: file-created, file-modified; pathPrefix /var/build\n')
  expect(result.stderr).toContain(
    ' 2  keep    backup: all that can be listed; executable /usr/bin/backup; userId 0\n',
  )
})

test('a host that is named twice gets the lists once, and all hosts can be meant', async () => {
  const twice = await set(LISTS, '--host', 'web-1', '--host', AGENT_ID, '--yes', '--json')
  expect(twice.json()).toHaveLength(1)
  const all = await set({ rules: [] }, '--all', '--yes', '--json')
  const hosts = controller.services.hosts.list().filter(({ state }) => state !== 'revoked')
  expect(all.json()).toHaveLength(hosts.length)
  expect(all.stderr).toContain('lists of no rules')
})

test.each([
  [[], 'name hosts with --host, or all of them with --all'],
  [['--host', 'web-1', '--all'], 'name hosts with --host, or all of them with --all'],
])('hosts %j are told to be named one way', async (words, told) => {
  const result = await set(LISTS, ...words, '--yes')
  expect([result.exitCode, result.stderr.includes(told)]).toEqual([2, true])
})

test.each([
  ['{', /cannot be read: .*JSON/],
  [{ rules: [{ ...LISTS.rules[0], verdict: 'hide' }] }, /"build": `verdict` is one of drop, keep, always/],
  [{ rules: [{ name: 'x', verdict: 'drop' }] }, /"x": it would drop all of its actions/],
  [{ rules: [{ name: 'x', verdict: 'keep', path: '/a' }] }, /"x": there is no field "path"/],
  [
    { rules: Array.from({ length: 65 }, () => LISTS.rules[0]) },
    /65 telemetry rules are too many: .* at most 64/,
  ],
  ['x'.repeat(300_000), /larger than 262144 bytes/],
])('a file that holds %j is refused with what is wrong, and nothing is planned', async (content, told) => {
  const plans = controller.actions.plans.size
  const result = await set(content, '--host', 'web-1', '--yes')
  expect([result.exitCode, controller.actions.plans.size]).toEqual([2, plans])
  expect(result.stderr).toMatch(told)
})

test('a file that is not there is told by its name', async () => {
  const missing = join(folder, 'missing.json')
  const words = ['--file', missing, '--host', 'web-1', '--reason', 'x', '--yes']
  const result = await operator.run(['telemetry', 'set', ...words])
  expect([result.exitCode, result.stderr.includes(`--file ${missing} cannot be read: ENOENT`)]).toEqual([
    2,
    true,
  ])
})

const sha256 = hashTelemetryLists(LISTS)
const step = (state: ActionState, at = AT, changes: Partial<ActionStep> = {}): ActionStep => ({
  state,
  at,
  by: 'agent',
  reason: `it is ${state}`,
  proof: {},
  ...changes,
})
const action = (id: string, state: ActionState, steps: ActionStep[], lists = LISTS): Action => ({
  id: id.repeat(32),
  intentId: 'e'.repeat(32),
  action: 'setTelemetryLists',
  class: 'C',
  agentId: AGENT_ID,
  hostName: 'web-1',
  target: { kind: 'host', breakGlassHash: null },
  args: { lists },
  reason: 'CHG-7',
  incidentId: null,
  requestedBy: 'ada',
  state,
  createdAt: AT,
  expiresAt: AT,
  steps,
})
async function shown(...actions: Action[]) {
  Object.assign(controller.services.actions, { list: () => actions })
  const result = await operator.run(['telemetry', 'show', '--host', 'web-1'])
  expect(result.exitCode, result.stderr).toBe(0)
  const json = await operator.run(['telemetry', 'show', '--host', 'web-1', '--json'])
  return { text: result.stdout, json: json.json() }
}
const LATER = '2026-01-02T04:00:00.000Z'
const proof = { rules: 2, sha256 }

test('a host on which no lists were applied says so, whatever was refused or waits', async () => {
  const { text, json } = await shown(
    action('b', 'awaitingApproval', [step('awaitingApproval', AT, { by: 'controller' })]),
    action('a', 'refused', [step('refused')]),
  )
  expect(json).toMatchObject({ state: 'none', rules: [], sha256: null, underWay: ['b'.repeat(32)] })
  expect(text).toMatch(
    /none in force: all is told\n.*no lists were ever applied on this host\n.*bbbb is awaitingApproval/,
  )
})

test('of several lists those applied last are in force, whenever they were asked for', async () => {
  const { text, json } = await shown(
    action('b', 'done', [step('applied'), step('done')], { rules: [] }),
    action('a', 'done', [step('applied', LATER), step('done', LATER, { proof })]),
  )
  const commandId = 'a'.repeat(32)
  expect(json).toMatchObject({ state: 'inForce', rules: LISTS.rules, sha256, since: LATER, commandId })
  expect(text).toMatch(/^Lists +in force$/m)
  expect(text).toMatch(/^Rules +2 rules, SHA-256 [0-9a-f]{64}$/m)
  expect(text).not.toContain('DIFFERS')
})

test('lists that were removed, taken back or not proved are not told as in force', async () => {
  const removed = action('b', 'done', [step('applied'), step('done')], { rules: [] })
  expect((await shown(removed)).json).toMatchObject({ state: 'none', rules: [] })
  const reverted = action('b', 'reverted', [
    ...[step('applied'), step('done', AT, { proof })],
    step('reverted', LATER, { reason: 'the file was altered' }),
  ])
  const { text } = await shown(reverted)
  expect(text).toMatch(/^Lists +none in force: all is told$/m)
  expect(text).toContain('the file was altered')
  const failed = action('b', 'failed', [step('applied'), step('failed')])
  expect((await shown(failed)).json).toMatchObject({ state: 'uncertain', reason: 'it is failed' })
})

test('a host that measured other lists than were signed is shown to differ', async () => {
  const other = { rules: 2, sha256: 'f'.repeat(64) }
  const { text } = await shown(action('a', 'done', [step('applied'), step('done', AT, { proof: other })]))
  expect(text).toMatch(/^DIFFERS +the host says SHA-256 f{64}$/m)
})
