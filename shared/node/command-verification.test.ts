import type { KeyObject } from 'node:crypto'
import { expect, test } from 'vitest'
import type { Intent, Keyset, Leaf, Wrapper } from '../protocol/commands.ts'
import type { Command } from '../protocol/messages.ts'
import { LIVE_CLOCK_SKEW_MS_MAX, type VerificationContext, verifyCommand } from './command-verification.ts'
import { createMerkleTree } from './merkle.ts'
import { generateSigningKey, keyIdOf, rawPublicKey, sha256Hex, signBytes } from './signing.ts'

const nowMs = 1_800_000_000_000
const fleet = 'f'.repeat(32)
const nonce = '0e'.repeat(16)
const [ada, bob, eve, controller, stranger] = [1, 2, 3, 4, 5].map(generateSigningKey) as [
  KeyObject,
  KeyObject,
  KeyObject,
  KeyObject,
  KeyObject,
]
const adaSecond = generateSigningKey()

const entry = (key: KeyObject) => {
  const publicKey = rawPublicKey(key)
  return { keyId: keyIdOf(publicKey), publicKey }
}
const operator = (key: KeyObject, name: string, classes: ('C' | 'D')[]) => ({
  keyId: entry(key).keyId,
  kind: 'ed25519' as const,
  publicKey: entry(key).publicKey,
  name,
  classes,
})
const keyset: Keyset = {
  v: 1,
  fleet,
  version: 7,
  issued: nowMs - 1_000,
  expires: nowMs + 365 * 86_400_000,
  operators: [
    operator(ada, 'ada', ['C', 'D']),
    operator(adaSecond, 'ada', ['C', 'D']),
    operator(bob, 'bob', ['C']),
    operator(eve, 'eve', ['D']),
  ],
  thresholds: { C: 1, D: 2 },
  controllers: [entry(controller)],
}
const context: VerificationContext = {
  keyset,
  fleet,
  agentId: 'aa'.repeat(16),
  agentKeyFingerprint: 'ab'.repeat(32),
  sessionNonce: nonce,
  nowMs,
  highest: { epoch: 2, sequence: 40 },
}
const leafOf = (index: number): Leaf => ({
  commandId: index.toString(16).padStart(32, '0'),
  agentId: index === 1 ? context.agentId : index.toString(16).padStart(32, 'b'),
  agentKeyFingerprint: index === 1 ? context.agentKeyFingerprint : index.toString(16).padStart(64, 'c'),
  target: {
    kind: 'process',
    pid: 1_000 + index,
    startTicks: 123_456,
    bootId: '01234567-89ab-cdef-0123-456789abcdef',
    executableSha256: 'd1'.repeat(32),
  },
})
const baseLeaves = [0, 1, 2].map(leafOf)
const intentOf = (leaves: readonly Leaf[]): Intent => ({
  v: 1,
  fleet,
  intentId: '17'.repeat(16),
  class: 'C',
  action: 'killProcess',
  args: { tree: true },
  reason: 'a miner was found',
  incident: 'INC-1',
  notBefore: nowMs - 60_000,
  expires: nowMs + 60_000,
  targetsRoot: createMerkleTree(leaves.map(encode)).root,
  targetsCount: leaves.length,
})

function encode(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value), 'utf8')
}

interface Parts {
  leaves?: readonly Leaf[]
  intent?: Partial<Intent>
  wrapper?: Partial<Wrapper>
  signers?: readonly KeyObject[]
  wrapperSigner?: KeyObject
  /** What is delivered in place of the signed leaf. */
  deliveredLeaf?: unknown
}

/** A command as dispatch makes it; every part may be replaced before it is signed. */
function build(parts: Parts = {}): Command {
  const leaves = parts.leaves ?? baseLeaves
  const tree = createMerkleTree(leaves.map(encode))
  const intent = encode({ ...intentOf(leaves), ...parts.intent })
  const leaf = encode(parts.deliveredLeaf ?? leaves[1] ?? leaves[0])
  const index = leaves.length > 1 ? 1 : 0
  const wrapper = encode({
    v: 1,
    commandId: (JSON.parse(leaf.toString()) as Leaf).commandId,
    intentHash: sha256Hex(intent),
    leafHash: sha256Hex(leaf),
    epoch: 2,
    sequence: 41,
    sessionNonce: nonce,
    issued: nowMs,
    keysetVersion: 7,
    ...parts.wrapper,
  })
  return {
    kind: 'command',
    intent: intent.toString('base64'),
    signatures: (parts.signers ?? [ada]).map((key) => signBytes('intent', intent, key)),
    leaf: leaf.toString('base64'),
    leafIndex: index,
    leafCount: leaves.length,
    proof: tree.proof(index),
    wrapper: wrapper.toString('base64'),
    wrapperSignature: signBytes('wrapper', wrapper, parts.wrapperSigner ?? controller),
  }
}

const outcome = (message: Command, changed: Partial<VerificationContext> = {}) => {
  const result = verifyCommand(message, { ...context, ...changed })
  return result.ok ? 'ok' : result.failure.kind
}

test('a command with its operator, leaf and wrapper in order is verified and says what was signed', () => {
  const result = verifyCommand(build(), context)
  expect(result).toMatchObject({
    ok: true,
    command: { commandId: leafOf(1).commandId, leaf: leafOf(1), operators: ['ada'], live: true },
  })
})

/** Every path to a scalar in a JSON value. */
function scalarPaths(value: unknown, path: readonly string[] = []): string[][] {
  if (typeof value !== 'object' || value === null) return [[...path]]
  return Object.entries(value).flatMap(([key, inner]) => scalarPaths(inner, [...path, key]))
}

/** The value with the scalar at `path` changed into others that often still fit the schema. */
function mutations(value: unknown, path: readonly string[]): unknown[] {
  const [head, ...rest] = path
  if (head === undefined) {
    if (typeof value === 'number') return [value + 1, value - 1, 0, String(value), null]
    if (typeof value === 'boolean') return [!value, null]
    if (value === null) return ['0'.repeat(64), 1]
    const text = String(value)
    const swapped = (text[0] === '0' ? '1' : '0') + text.slice(1)
    return [
      swapped,
      text.slice(1),
      `${text}0`,
      '',
      null,
      text.toUpperCase() === text ? `${text} ` : text.toUpperCase(),
    ]
  }
  const container = value as Record<string, unknown>
  return mutations(container[head], rest).map((changed) =>
    Array.isArray(value)
      ? value.map((item, index) => (String(index) === head ? changed : item))
      : { ...container, [head]: changed },
  )
}

const decode = (base64: string) => JSON.parse(Buffer.from(base64, 'base64').toString('utf8')) as unknown

test.each(['intent', 'leaf', 'wrapper'] as const)(
  'a change to any field of the %s is refused while the signatures stay as they are',
  (part) => {
    const message = build()
    const value = decode(message[part])
    let tried = 0
    for (const path of scalarPaths(value)) {
      for (const changed of mutations(value, path)) {
        const forged = { ...message, [part]: encode(changed).toString('base64') }
        expect(outcome(forged), `${part} ${path.join('.')}`).not.toBe('ok')
        tried += 1
      }
    }
    expect(tried).toBeGreaterThan(20)
  },
)

test('a change to any field of the message around them is refused', () => {
  const message = build({ signers: [ada, bob] })
  const { kind: _, ...rest } = message
  for (const path of scalarPaths(rest)) {
    for (const changed of mutations(rest, path)) {
      const forged = { kind: 'command', ...(changed as object) } as Command
      let result: string
      try {
        result = outcome(forged)
      } catch {
        // The strict parser refuses what is of another type before it comes here.
        result = 'wrong type'
      }
      expect(result, path.join('.')).not.toBe('ok')
    }
  }
})

test('any flipped bit of intent, leaf and wrapper is refused', () => {
  const message = build()
  for (const part of ['intent', 'leaf', 'wrapper'] as const) {
    const bytes = Buffer.from(message[part], 'base64')
    for (let index = 0; index < bytes.length; index += 1) {
      const changed = Buffer.from(bytes)
      changed.writeUInt8(bytes.readUInt8(index) ^ (1 << (index % 8)), index)
      expect(outcome({ ...message, [part]: changed.toString('base64') })).not.toBe('ok')
    }
  }
})

/** Signs the wrapper anew, as someone who stole the controller's key can. */
function rewrap(message: Command, wrapper: unknown): Command {
  const bytes = encode(wrapper)
  return {
    ...message,
    wrapper: bytes.toString('base64'),
    wrapperSignature: signBytes('wrapper', bytes, controller),
  }
}

test("a thief of the controller's key cannot change any field of the intent", () => {
  const message = build()
  const value = decode(message.intent)
  const wrapper = decode(message.wrapper) as Wrapper
  for (const path of scalarPaths(value)) {
    for (const changed of mutations(value, path)) {
      const bytes = encode(changed)
      const signatures = [signBytes('intent', bytes, controller)]
      const forged = rewrap(
        { ...message, intent: bytes.toString('base64') },
        { ...wrapper, intentHash: sha256Hex(bytes) },
      )
      expect(outcome(forged), path.join('.')).toBe('signature')
      // Signed by the thief alone, it may pass for class R and nothing else; the action's class forbids that.
      expect(outcome({ ...forged, signatures }), path.join('.')).not.toBe('ok')
      expect(outcome({ ...forged, signatures: [...message.signatures, ...signatures] })).not.toBe('ok')
    }
  }
})

test("a thief of the controller's key cannot change any field of the leaf", () => {
  const message = build()
  const value = decode(message.leaf)
  const wrapper = decode(message.wrapper) as Wrapper
  for (const path of scalarPaths(value)) {
    for (const changed of mutations(value, path)) {
      const bytes = encode(changed)
      const commandId = (changed as Leaf).commandId
      const forged = rewrap(
        { ...message, leaf: bytes.toString('base64') },
        { ...wrapper, commandId, leafHash: sha256Hex(bytes) },
      )
      expect(outcome(forged), path.join('.')).not.toBe('ok')
    }
  }
})

test("what a thief of the controller's key signs into a wrapper delivers the approved command or nothing", () => {
  const message = build()
  const value = decode(message.wrapper)
  const delivered = new Set<string>()
  for (const path of scalarPaths(value)) {
    for (const changed of mutations(value, path)) {
      const result = verifyCommand(rewrap(message, changed), context)
      if (!result.ok) continue
      delivered.add(path.join('.'))
      expect(result.command.intent).toEqual(decode(message.intent))
      expect(result.command.leaf).toEqual(decode(message.leaf))
    }
  }
  // A later sequence, the moment of sending, and the queue instead of the live connection: nothing else.
  expect([...delivered].sort()).toEqual(['epoch', 'issued', 'sequence', 'sessionNonce'])
})

test('a target of the same intent on another host is refused here', () => {
  const tree = createMerkleTree(baseLeaves.map(encode))
  const message = { ...build({ deliveredLeaf: baseLeaves[2] }), leafIndex: 2, proof: tree.proof(2) }
  expect(outcome(message)).toBe('otherAgent')
})

test('a target under an older key of this agent is refused', () => {
  expect(outcome(build(), { agentKeyFingerprint: '00'.repeat(32) })).toBe('otherKey')
})

test('class D needs two different people, whatever number of keys one of them has', () => {
  const leaves = [leafOf(1)]
  const contextD = { keyset: { ...keyset, thresholds: { C: 2, D: 2 } } }
  expect(outcome(build({ leaves, signers: [ada] }), contextD)).toBe('threshold')
  expect(outcome(build({ leaves, signers: [ada, adaSecond] }), contextD)).toBe('threshold')
  expect(outcome(build({ leaves, signers: [ada, eve] }), contextD)).toBe('threshold')
  expect(outcome(build({ leaves, signers: [ada, bob] }), contextD)).toBe('ok')
})

test('one key signing twice, an unknown key and a bad signature beside a good one are refused', () => {
  expect(outcome(build({ signers: [ada, ada] }))).toBe('signature')
  expect(outcome(build({ signers: [ada, stranger] }))).toBe('signature')
  expect(outcome(build({ signers: [] }))).toBe('threshold')
  const message = build({ signers: [ada, bob] })
  const [first, second] = message.signatures
  if (!first || !second) throw new Error('two signatures were made')
  expect(outcome({ ...message, signatures: [first, { ...second, signature: first.signature }] })).toBe(
    'signature',
  )
})

test('an operator without the class does not count', () => {
  expect(outcome(build({ signers: [eve] }))).toBe('threshold')
})

test('an action under another class than its own is refused, whoever signed', () => {
  expect(outcome(build({ intent: { class: 'R' }, signers: [controller] }))).toBe('class')
  expect(outcome(build({ intent: { class: 'D' }, signers: [ada, eve] }))).toBe('class')
})

test('class R takes one signature of a controller, and neither none nor an operator', () => {
  const leaves: Leaf[] = [{ ...leafOf(1), target: { kind: 'path', path: '/tmp' } }]
  const intent = { class: 'R' as const, action: 'scanPath' as const, args: { filesMax: 10 } }
  expect(outcome(build({ leaves, intent, signers: [controller] }))).toBe('ok')
  expect(outcome(build({ leaves, intent, signers: [] }))).toBe('threshold')
  expect(outcome(build({ leaves, intent, signers: [ada] }))).toBe('threshold')
  expect(outcome(build({ leaves, intent, signers: [controller, ada] }))).toBe('threshold')
})

test('arguments and targets are those of the action', () => {
  expect(outcome(build({ intent: { args: {} } }))).toBe('malformed')
  expect(outcome(build({ intent: { args: { tree: true, extra: 1 } } }))).toBe('malformed')
  expect(outcome(build({ leaves: [{ ...leafOf(1), target: { kind: 'path', path: '/' } }] }))).toBe(
    'malformed',
  )
})

test('signed bytes that are not canonical are refused', () => {
  const intent = Buffer.from(JSON.stringify(intentOf(baseLeaves)).replace('"v":1', '"v":1,"v":1'))
  const wrapper = { ...(decode(build().wrapper) as Wrapper), intentHash: sha256Hex(intent) }
  const message = rewrap(
    { ...build(), intent: intent.toString('base64'), signatures: [signBytes('intent', intent, ada)] },
    wrapper,
  )
  expect(outcome(message)).toBe('malformed')
})

test('a wrapper made for another command, by another key or for another connection is refused', () => {
  expect(outcome(build({ wrapper: { intentHash: '00'.repeat(32) } }))).toBe('wrapper')
  expect(outcome(build({ wrapper: { leafHash: '00'.repeat(32) } }))).toBe('wrapper')
  expect(outcome(build({ wrapper: { commandId: '00'.repeat(16) } }))).toBe('wrapper')
  expect(outcome(build({ wrapperSigner: ada }))).toBe('signature')
  expect(outcome(build({ wrapperSigner: stranger }))).toBe('signature')
  expect(outcome(build({ wrapper: { sessionNonce: '00'.repeat(16) } }))).toBe('nonce')
})

test('the same delivery, an older one and one of an earlier epoch are replays', () => {
  expect(outcome(build(), { highest: { epoch: 2, sequence: 41 } })).toBe('replay')
  expect(outcome(build(), { highest: { epoch: 2, sequence: 42 } })).toBe('replay')
  expect(outcome(build(), { highest: { epoch: 3, sequence: 1 } })).toBe('replay')
  expect(outcome(build({ wrapper: { epoch: 3, sequence: 1 } }))).toBe('ok')
})

test('a keyset of another version, or one that has expired, decides nothing', () => {
  expect(outcome(build(), { keyset: { ...keyset, version: 8 } })).toBe('keyset')
  expect(outcome(build(), { keyset: { ...keyset, expires: nowMs } })).toBe('keyset')
})

test('a live command is judged by the time of sending, so an agent with a wrong clock obeys', () => {
  const threeDaysMs = 3 * 86_400_000
  expect(outcome(build(), { nowMs: nowMs + threeDaysMs })).toBe('ok')
  expect(outcome(build(), { nowMs: nowMs - threeDaysMs })).toBe('ok')
  expect(outcome(build({ wrapper: { issued: nowMs + 60_000 } }))).toBe('expired')
  expect(outcome(build({ wrapper: { issued: nowMs - 60_001 } }))).toBe('notYet')
})

test('an old approval cannot be dated back into its time by whoever holds the key of the controller', () => {
  expect(outcome(build(), { nowMs: nowMs + LIVE_CLOCK_SKEW_MS_MAX + 1 })).toBe('expired')
})

test("a queued command is judged by the agent's own clock", () => {
  const queued = build({ wrapper: { sessionNonce: null, issued: nowMs - 10 } })
  expect(verifyCommand(queued, context)).toMatchObject({ ok: true, command: { live: false } })
  expect(outcome(queued, { nowMs: nowMs + 60_000 })).toBe('expired')
  expect(outcome(queued, { nowMs: nowMs - 60_001 })).toBe('notYet')
})

test('an intent that would be valid for longer than a day is refused', () => {
  expect(outcome(build({ intent: { expires: nowMs + 86_400_000 } }))).toBe('malformed')
})

test('an intent or a keyset of another fleet is refused', () => {
  expect(outcome(build({ intent: { fleet: '0'.repeat(32) } }))).toBe('fleet')
  expect(outcome(build(), { keyset: { ...keyset, fleet: '0'.repeat(32) } })).toBe('fleet')
})
