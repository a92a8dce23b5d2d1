/** Signed commands for tests: a fleet with one operator and one controller, and the mutations of a message. */
import { randomBytes } from 'node:crypto'
import { createMerkleTree } from '../../../shared/node/merkle.ts'
import {
  generateSigningKey,
  keyIdOf,
  rawPublicKey,
  sha256Hex,
  signBytes,
} from '../../../shared/node/signing.ts'
import {
  ACTIONS,
  type ActionArgs,
  type ActionName,
  type ActionTarget,
  type Keyset,
} from '../../../shared/protocol/commands.ts'
import type { Command } from '../../../shared/protocol/messages.ts'
import type { ReceiverContext } from '../receiver.ts'

export interface CommandOptions {
  readonly commandId?: string
  readonly sequence: number
  readonly epoch?: number
  readonly live?: boolean
  readonly notBefore?: number
  readonly expires?: number
}

export interface TestFleet {
  readonly context: ReceiverContext
  sign<Name extends ActionName>(
    action: Name,
    target: ActionTarget<Name>,
    args: ActionArgs<Name>,
    options: CommandOptions,
  ): Command
}

const hex = (bytes: number) => randomBytes(bytes).toString('hex')

export function createTestFleet(clock: () => number): TestFleet {
  const operator = generateSigningKey()
  const controller = generateSigningKey()
  const keyOf = (publicKey: string) => ({ keyId: keyIdOf(publicKey), publicKey })
  const fleet = hex(16)
  const keyset: Keyset = {
    v: 1,
    fleet,
    version: 3,
    issued: 0,
    expires: Number.MAX_SAFE_INTEGER,
    operators: [{ ...keyOf(rawPublicKey(operator)), kind: 'ed25519', name: 'Ada', classes: ['C'] }],
    thresholds: { C: 1, D: 2 },
    controllers: [keyOf(rawPublicKey(controller))],
  }
  const context: ReceiverContext = {
    keyset,
    fleet,
    agentId: hex(16),
    agentKeyFingerprint: hex(32),
    sessionNonce: hex(16),
  }
  return {
    context,
    sign(action, target, args, options) {
      const commandId = options.commandId ?? hex(16)
      const leaf = Buffer.from(
        JSON.stringify({
          commandId,
          agentId: context.agentId,
          agentKeyFingerprint: context.agentKeyFingerprint,
          target,
        }),
      )
      const other = Buffer.from(JSON.stringify({ commandId: hex(16) }))
      const tree = createMerkleTree([other, leaf])
      const commandClass = ACTIONS[action].class
      const intent = Buffer.from(
        JSON.stringify({
          v: 1,
          fleet,
          intentId: hex(16),
          class: commandClass,
          action,
          args,
          reason: 'test',
          incident: null,
          notBefore: options.notBefore ?? clock() - 1_000,
          expires: options.expires ?? clock() + 60_000,
          targetsRoot: tree.root,
          targetsCount: tree.count,
        }),
      )
      const wrapper = Buffer.from(
        JSON.stringify({
          v: 1,
          commandId,
          intentHash: sha256Hex(intent),
          leafHash: sha256Hex(leaf),
          epoch: options.epoch ?? 1,
          sequence: options.sequence,
          sessionNonce: options.live === false ? null : context.sessionNonce,
          issued: clock(),
          keysetVersion: keyset.version,
        }),
      )
      const key = commandClass === 'R' ? controller : operator
      return {
        kind: 'command',
        intent: intent.toString('base64'),
        signatures: [signBytes('intent', intent, key)],
        leaf: leaf.toString('base64'),
        leafIndex: 1,
        leafCount: tree.count,
        proof: tree.proof(1),
        wrapper: wrapper.toString('base64'),
        wrapperSignature: signBytes('wrapper', wrapper, controller),
      }
    },
  }
}

/** The id that a command's leaf carries. */
export function commandIdOf(message: Command): string {
  return JSON.parse(Buffer.from(message.leaf, 'base64').toString()).commandId
}

/** Every single-field change of a command: each text with one character changed, each number, each list. */
export function mutationsOf(message: Command): [string, Command][] {
  const found: [string, Command][] = []
  const add = (what: string, changed: Partial<Command>) => found.push([what, { ...message, ...changed }])
  for (const part of ['intent', 'leaf', 'wrapper'] as const) {
    const fields = JSON.parse(Buffer.from(message[part], 'base64').toString())
    for (const [name, value] of Object.entries(fields)) {
      const changed = Buffer.from(JSON.stringify({ ...fields, [name]: changedValue(value) })).toString(
        'base64',
      )
      add(`${part}.${name}`, { [part]: changed })
    }
    add(`${part} emptied`, { [part]: '' })
  }
  const [signature] = message.signatures
  if (!signature) throw new Error('the command is not signed')
  add('no signature', { signatures: [] })
  add('the signature', { signatures: [{ ...signature, signature: changedText(signature.signature) }] })
  add('the signer', { signatures: [{ ...signature, keyId: changedText(signature.keyId) }] })
  add('a signature twice', { signatures: [signature, signature] })
  add('the controller as operator', { signatures: [message.wrapperSignature] })
  add('the index', { leafIndex: 0 })
  add('the count', { leafCount: message.leafCount + 1 })
  add('no proof', { proof: [] })
  add('the proof', { proof: message.proof.map(changedText) })
  const { wrapperSignature } = message
  add('the wrapper signature', {
    wrapperSignature: { ...wrapperSignature, signature: changedText(wrapperSignature.signature) },
  })
  add('the operator as controller', { wrapperSignature: signature })
  return found
}

function changedValue(value: unknown): unknown {
  if (typeof value === 'number') return value + 1
  if (typeof value === 'string') return changedText(value)
  if (value === null) return 'x'
  return { ...(value as object), startTicks: 1, tree: true, filesMax: 7 }
}

function changedText(text: string): string {
  return (text[0] === 'a' ? 'b' : 'a') + text.slice(1)
}
