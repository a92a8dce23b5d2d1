import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { createMerkleTree } from '../../shared/node/merkle.ts'
import type { Intent, Leaf } from '../../shared/protocol/commands.ts'
import { ENTITY_ID, OTHER_AGENT_ID } from '../api/testing/fixtures.ts'
import type { MemoryActionsOptions } from '../api/testing/memory-actions.ts'
import { type MemoryController, startMemoryController } from '../api/testing/memory-controller.ts'
import { createOperator, type Operator } from './testing/operator.ts'

let controller: MemoryController
let operator: Operator
beforeAll(async () => {
  controller = await startMemoryController()
  operator = await createOperator(controller)
})
afterEach(() => {
  delete controller.actionOptions.lie
})
afterAll(async () => {
  operator[Symbol.dispose]()
  await controller[Symbol.asyncDispose]()
})

const kill = [
  'proc',
  'kill',
  ENTITY_ID,
  '--reason',
  'asked',
  '--incident',
  'INC-1',
  '--ttl',
  '5m',
  '--yes',
  '--json',
]

type Lie = NonNullable<MemoryActionsOptions['lie']>
const intent = (change: (of: Intent) => Partial<Record<keyof Intent, unknown>>): Lie => ({
  intent: (of) => ({ ...of, ...change(of) }) as Intent,
})
const leaves = (change: (of: Leaf) => unknown): Lie => ({
  leaves: (all) => all.map((of) => change(of) as Leaf),
})
const process = (of: Leaf, change: Record<string, unknown>) => ({
  ...of,
  target: { ...of.target, ...change },
})
const recode = (encoded: string, change: (text: string) => string) =>
  Buffer.from(change(Buffer.from(encoded, 'base64').toString())).toString('base64')

/** Each is whole in itself, with a right Merkle root, unless it says otherwise. */
const lies: readonly (readonly [string, Lie, RegExp])[] = [
  ['another process', leaves((of) => process(of, { pid: 4243 })), /a target is not the one/],
  ['another start time', leaves((of) => process(of, { startTicks: 1 })), /a target is not the one/],
  ['no executable hash', leaves((of) => process(of, { executableSha256: null })), /a target is not the one/],
  ['another host', leaves((of) => ({ ...of, agentId: OTHER_AGENT_ID })), /another host/],
  [
    'another key of the host',
    leaves((of) => ({ ...of, agentKeyFingerprint: '0'.repeat(64) })),
    /another key/,
  ],
  [
    'one target more',
    { leaves: (all) => [...all, ...all.map((of) => ({ ...of, commandId: '1'.repeat(32) }))] },
    /2 targets, asked were 1/,
  ],
  [
    'a file in place of a process',
    leaves((of) => ({ ...of, target: { kind: 'path', path: '/' } })),
    /not of this action/,
  ],
  ['a larger count', intent(() => ({ targetsCount: 2 })), /2 targets, 1 are listed/],
  [
    'the root of other targets',
    intent(() => ({ targetsRoot: createMerkleTree([Buffer.from('x')]).root })),
    /other targets/,
  ],
  ['another action', intent(() => ({ action: 'quarantineFile', args: {} })), /not of this action/],
  ['other arguments', intent(() => ({ args: { tree: true } })), /arguments are not those/],
  ['arguments that do not exist', intent(() => ({ args: { tree: false, all: true } })), /not of this action/],
  ['a longer life', intent((of) => ({ expires: of.expires + 3_600_000 })), /lives longer than asked/],
  ['a life of years', intent((of) => ({ expires: of.expires + 10 ** 11 })), /longer than a day/],
  [
    'a beginning in the future',
    intent((of) => ({ notBefore: of.notBefore + 3_600_000, expires: of.expires + 3_600_000 })),
    /begins in the future/,
  ],
  ['a life that is over', intent((of) => ({ expires: of.notBefore - 1 })), /has expired/],
  ['another reason', intent(() => ({ reason: 'something else' })), /reason is not the one/],
  ['another incident', intent(() => ({ incident: 'INC-2' })), /incident is not the one/],
  ['no incident', intent(() => ({ incident: null })), /incident is not the one/],
  ['a lower class', intent(() => ({ class: 'R' })), /not the class of this action/],
  ['another fleet', intent(() => ({ fleet: '9'.repeat(32) })), /another fleet/],
  ['another version', intent(() => ({ v: 2 })), /cannot be read/],
  ['an unknown field', intent(() => ({ also: 'this' }) as never), /cannot be read/],
  ['another id outside than inside', { plan: (of) => ({ ...of, intentId: 'a'.repeat(32) }) }, /another id/],
  [
    'other actions to follow',
    { plan: (of) => ({ ...of, actions: of.actions.map((a) => ({ ...a, id: 'b'.repeat(32) })) }) },
    /not those of the intent/,
  ],
  [
    'a key twice in the intent',
    {
      plan: (of) => ({ ...of, intent: recode(of.intent, (t) => t.replace('{"v":1', '{"v":1,"reason":"x"')) }),
    },
    /cannot be read/,
  ],
  [
    'white space in the intent',
    { plan: (of) => ({ ...of, intent: recode(of.intent, (t) => ` ${t}`) }) },
    /cannot be read/,
  ],
  [
    'bytes that are not UTF-8',
    { plan: (of) => ({ ...of, intent: Buffer.from([0xff, 0xfe]).toString('base64') }) },
    /not base64 of UTF-8/,
  ],
  ['base64 with loose bits', { plan: (of) => ({ ...of, intent: 'AB==' }) }, /not base64 of UTF-8/],
  ['no targets', { plan: (of) => ({ ...of, leaves: [], actions: [] }) }, /1 targets, 0 are listed/],
]

test.each(lies)('a controller that answers with %s gets no signature', async (_name, lie, reason) => {
  controller.actionOptions.lie = lie
  const result = await operator.run(kill)
  expect(result.exitCode, result.stderr).toBe(1)
  const { error } = JSON.parse(result.stderr.trim().split('\n').at(-1) ?? '')
  expect(error.code).toBe('planRefused')
  expect(error.message).toMatch(reason)
  expect(controller.actions.approvals).toEqual([])
})

test('the same request without a lie is signed', async () => {
  expect((await operator.run(kill)).exitCode).toBe(0)
  expect(controller.actions.approvals).toHaveLength(1)
})
