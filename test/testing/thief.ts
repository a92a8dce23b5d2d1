/**
 * Somebody who has everything that a controller has: its state folder, its key for commands, a certificate that
 * agents believe, and approvals of operators that went through it. Not the root's key, and no operator's.
 */
import type { KeyObject } from 'node:crypto'
import { randomBytes } from 'node:crypto'
import { createMerkleTree } from '../../shared/node/merkle.ts'
import { sha256Hex, signBytes } from '../../shared/node/signing.ts'
import {
  ACTIONS,
  type ActionArgs,
  type ActionName,
  type ActionTarget,
  type Intent,
  type Leaf,
  type Wrapper,
} from '../../shared/protocol/commands.ts'
import type { Command } from '../../shared/protocol/messages.ts'

export interface ThiefOptions {
  readonly fleet: string
  readonly agentId: string
  readonly agentKeyFingerprint: string
  readonly keysetVersion: number
  /** Of the present connection. */
  readonly sessionNonce: () => string
  readonly commandKey: KeyObject
}

export interface Changes {
  readonly intent?: Partial<Intent>
  readonly leaf?: Partial<Leaf>
  readonly wrapper?: Partial<Wrapper>
}

export interface Thief {
  /** What operators signed, with a wrapper of its own. */
  command<Name extends ActionName>(
    action: Name,
    target: ActionTarget<Name>,
    args: ActionArgs<Name>,
    signers: readonly KeyObject[],
    changes?: Changes,
  ): Command
  /** The same with a new wrapper for its bytes as they are, under the next sequence. */
  rewrap(message: Command, changes?: Partial<Wrapper>): Command
}

const hex = (bytes: number) => randomBytes(bytes).toString('hex')
const encode = (value: unknown) => Buffer.from(JSON.stringify(value))

export function createThief(options: ThiefOptions): Thief {
  let sequence = 0

  const rewrap = (message: Command, changes: Partial<Wrapper> = {}): Command => {
    sequence += 1
    const [intent, leaf] = [message.intent, message.leaf].map((text) => Buffer.from(text, 'base64'))
    if (!intent || !leaf) throw new Error('a command has an intent and a leaf')
    const wrapper = encode({
      v: 1,
      commandId: commandIdIn(leaf) ?? hex(16),
      intentHash: sha256Hex(intent),
      leafHash: sha256Hex(leaf),
      epoch: 1,
      sequence,
      sessionNonce: options.sessionNonce(),
      issued: Date.now(),
      keysetVersion: options.keysetVersion,
      ...changes,
    } satisfies Wrapper)
    return {
      ...message,
      wrapper: wrapper.toString('base64'),
      wrapperSignature: signBytes('wrapper', wrapper, options.commandKey),
    }
  }

  return {
    rewrap,
    command(action, target, args, signers, changes = {}) {
      const leaf = encode({
        commandId: hex(16),
        agentId: options.agentId,
        agentKeyFingerprint: options.agentKeyFingerprint,
        target,
        ...changes.leaf,
      })
      const tree = createMerkleTree([encode({ commandId: hex(16) }), leaf])
      const intent = encode({
        v: 1,
        fleet: options.fleet,
        intentId: hex(16),
        class: ACTIONS[action].class,
        action,
        args,
        reason: 'a test',
        incident: null,
        notBefore: Date.now() - 1_000,
        expires: Date.now() + 600_000,
        targetsRoot: tree.root,
        targetsCount: tree.count,
        ...changes.intent,
      })
      const unwrapped: Command = {
        kind: 'command',
        intent: intent.toString('base64'),
        signatures: signers.map((key) => signBytes('intent', intent, key)),
        leaf: leaf.toString('base64'),
        leafIndex: 1,
        leafCount: tree.count,
        proof: tree.proof(1),
        wrapper: '',
        wrapperSignature: { keyId: hex(32), signature: hex(64) },
      }
      return rewrap(unwrapped, changes.wrapper)
    },
  }
}

function commandIdIn(leaf: Buffer): string | null {
  try {
    return JSON.parse(leaf.toString()).commandId
  } catch {
    return null
  }
}
