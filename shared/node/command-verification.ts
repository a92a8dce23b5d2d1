/**
 * The check that stands between a controller and every host: what was wanted (an intent with its operators'
 * signatures), for whom (a leaf under the intent's root) and how it was delivered (the controller's wrapper).
 *
 * Signatures are verified over the exact bytes before anything in them is read. Whoever owns the controller
 * can withhold a command and deliver it again under a new sequence; the leaf's command id, which the agent
 * journals before it acts, keeps the second delivery from doing anything.
 */
import type { TSchema } from 'typebox'
import {
  ACTIONS,
  COMMAND_TTL_MS_MAX,
  Intent,
  type Keyset,
  Leaf,
  type SIGNATURE_DOMAINS,
  Wrapper,
} from '../protocol/commands.ts'
import { INTENT_BYTES_MAX } from '../protocol/limits.ts'
import type { Command, Signature } from '../protocol/messages.ts'
import { compileSchema, parseStrict, type SchemaCheck } from '../protocol/parse.ts'
import { verifyInclusion } from './merkle.ts'
import { decodeBase64, decodeUtf8, sha256Hex, verifyBytes } from './signing.ts'

export interface VerificationContext {
  readonly keyset: Keyset
  readonly fleet: string
  readonly agentId: string
  /** SHA-256 of the DER SubjectPublicKeyInfo in the agent's certificate. */
  readonly agentKeyFingerprint: string
  /** The nonce that the agent sent in the hello of this connection. */
  readonly sessionNonce: string
  readonly nowMs: number
  /** The highest wrapper that the agent has committed; epoch and sequence 0 before the first. */
  readonly highest: { readonly epoch: number; readonly sequence: number }
}

export interface VerifiedCommand {
  readonly commandId: string
  readonly intent: Intent
  readonly leaf: Leaf
  readonly wrapper: Wrapper
  /** Names of the operators who signed; empty for class R. */
  readonly operators: readonly string[]
  /** Bound to this connection by its nonce, so that clocks did not decide. */
  readonly live: boolean
  readonly intentHash: string
}

export interface VerificationFailure {
  readonly kind:
    | 'malformed'
    | 'fleet'
    | 'signature'
    | 'threshold'
    | 'class'
    | 'notYet'
    | 'expired'
    | 'proof'
    | 'otherAgent'
    | 'otherKey'
    | 'wrapper'
    | 'nonce'
    | 'replay'
    | 'keyset'
  readonly reason: string
}

export type VerificationResult =
  | { readonly ok: true; readonly command: VerifiedCommand }
  | { readonly ok: false; readonly failure: VerificationFailure }

/**
 * How far an agent's clock may be off for a live command. Without a bound, a thief of the controller's keys
 * could date a wrapper back and deliver an approval that was never used years later.
 */
export const LIVE_CLOCK_SKEW_MS_MAX = 7 * 24 * 3_600_000

const leafBytesMax = 8 * 1024
const wrapperBytesMax = 2 * 1024
const intentCheck = compileSchema(Intent)
const leafCheck = compileSchema(Leaf)
const wrapperCheck = compileSchema(Wrapper)
const actionChecks = new Map(
  Object.entries<{ args: TSchema; target: TSchema }>(ACTIONS).map(([name, action]) => [
    name,
    { args: compileSchema(action.args), target: compileSchema(action.target) },
  ]),
)

type Step<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly failure: VerificationFailure }

/** Verifies one command for one agent. Never throws, whatever the message holds. */
export function verifyCommand(message: Command, context: VerificationContext): VerificationResult {
  const wrapper = openWrapper(message, context)
  if (!wrapper.ok) return wrapper
  const intent = openIntent(message, context)
  if (!intent.ok) return intent
  const leaf = openLeaf(message, intent.value.intent, context)
  if (!leaf.ok) return leaf
  const mismatch =
    checkBinding(wrapper.value, intent.value.hash, leaf.value) ??
    checkAction(intent.value.intent, leaf.value.leaf) ??
    checkDelivery(wrapper.value, intent.value.intent, context)
  if (mismatch) return { ok: false, failure: mismatch }
  return {
    ok: true,
    command: {
      commandId: leaf.value.leaf.commandId,
      intent: intent.value.intent,
      leaf: leaf.value.leaf,
      wrapper: wrapper.value,
      operators: intent.value.operators,
      live: wrapper.value.sessionNonce !== null,
      intentHash: intent.value.hash,
    },
  }
}

function openWrapper(message: Command, { keyset }: VerificationContext): Step<Wrapper> {
  const bytes = decodeBase64(message.wrapper)
  if (!bytes) return refused('malformed', 'the wrapper is not base64')
  const controller = keyset.controllers.find(({ keyId }) => keyId === message.wrapperSignature.keyId)
  if (!controller) return refused('signature', 'the wrapper is signed by no controller of the keyset')
  if (!verifyBytes('wrapper', bytes, message.wrapperSignature, controller.publicKey)) {
    return refused('signature', "the controller's signature does not fit the wrapper")
  }
  return parsePart('wrapper', wrapperCheck, bytes, wrapperBytesMax)
}

interface OpenedIntent {
  readonly intent: Intent
  readonly hash: string
  readonly operators: readonly string[]
}

function openIntent(message: Command, context: VerificationContext): Step<OpenedIntent> {
  const bytes = decodeBase64(message.intent)
  if (!bytes) return refused('malformed', 'the intent is not base64')
  const signers = verifySigners(bytes, message.signatures, context.keyset)
  if (!signers.ok) return signers
  const parsed = parsePart('intent', intentCheck, bytes, INTENT_BYTES_MAX)
  if (!parsed.ok) return parsed
  const intent = parsed.value
  if (intent.fleet !== context.fleet || context.keyset.fleet !== context.fleet) {
    return refused('fleet', 'the intent belongs to another fleet')
  }
  if (intent.class !== ACTIONS[intent.action].class) {
    return refused(
      'class',
      `${intent.action} is of class ${ACTIONS[intent.action].class}, not ${intent.class}`,
    )
  }
  const operators = countSigners(intent, signers.value, context.keyset)
  if (!operators.ok) return operators
  return { ok: true, value: { intent, hash: sha256Hex(bytes), operators: operators.value } }
}

interface Signers {
  readonly operators: Keyset['operators']
  readonly controllers: number
}

/** Every signature must be good and by a key of the keyset: one that is not is never merely passed over. */
function verifySigners(bytes: Buffer, signatures: readonly Signature[], keyset: Keyset): Step<Signers> {
  const seen = new Set<string>()
  const operators: Keyset['operators'] = []
  let controllers = 0
  for (const signature of signatures) {
    if (seen.has(signature.keyId)) return refused('signature', 'one key has signed the intent twice')
    seen.add(signature.keyId)
    const operator = keyset.operators.find(({ keyId }) => keyId === signature.keyId)
    const key = operator ?? keyset.controllers.find(({ keyId }) => keyId === signature.keyId)
    if (!key) return refused('signature', `the intent is signed by an unknown key ${signature.keyId}`)
    if (!verifyBytes('intent', bytes, signature, key.publicKey)) {
      return refused('signature', `the signature of key ${signature.keyId} does not fit the intent`)
    }
    if (operator) operators.push(operator)
    else controllers += 1
  }
  return { ok: true, value: { operators, controllers } }
}

function countSigners(intent: Intent, signers: Signers, keyset: Keyset): Step<readonly string[]> {
  const commandClass = intent.class
  if (commandClass === 'R') {
    if (signers.controllers === 1 && signers.operators.length === 0) return { ok: true, value: [] }
    return refused('threshold', 'an intent of class R carries one signature of a controller')
  }
  if (signers.controllers > 0) {
    return refused('signature', `a controller cannot sign an intent of class ${commandClass}`)
  }
  // By name, because one person with two keys is still one person.
  const names = new Set(
    signers.operators.filter(({ classes }) => classes.includes(commandClass)).map(({ name }) => name),
  )
  const needed = keyset.thresholds[commandClass]
  if (names.size >= needed) return { ok: true, value: [...names] }
  return refused('threshold', `class ${commandClass} needs ${needed} operators, ${names.size} signed`)
}

interface OpenedLeaf {
  readonly leaf: Leaf
  readonly hash: string
}

function openLeaf(message: Command, intent: Intent, context: VerificationContext): Step<OpenedLeaf> {
  const bytes = decodeBase64(message.leaf)
  if (!bytes) return refused('malformed', 'the leaf is not base64')
  const { leafIndex: index, leafCount: count, proof } = message
  if (count !== intent.targetsCount) return refused('proof', 'the number of targets is not the signed one')
  if (!verifyInclusion({ root: intent.targetsRoot, leaf: bytes, index, count, proof })) {
    return refused('proof', 'the leaf is not one of the signed targets')
  }
  const parsed = parsePart('leaf', leafCheck, bytes, leafBytesMax)
  if (!parsed.ok) return parsed
  if (parsed.value.agentId !== context.agentId) return refused('otherAgent', 'the target is another agent')
  if (parsed.value.agentKeyFingerprint !== context.agentKeyFingerprint) {
    return refused('otherKey', 'the target is this agent under another key')
  }
  return { ok: true, value: { leaf: parsed.value, hash: sha256Hex(bytes) } }
}

function checkBinding(
  wrapper: Wrapper,
  intentHash: string,
  leaf: OpenedLeaf,
): VerificationFailure | undefined {
  if (
    wrapper.intentHash === intentHash &&
    wrapper.leafHash === leaf.hash &&
    wrapper.commandId === leaf.leaf.commandId
  ) {
    return undefined
  }
  return { kind: 'wrapper', reason: 'the wrapper was made for another command' }
}

function checkAction(intent: Intent, leaf: Leaf): VerificationFailure | undefined {
  const checks = actionChecks.get(intent.action)
  if (!checks?.args.Check(intent.args)) {
    return { kind: 'malformed', reason: `the arguments are not those of ${intent.action}` }
  }
  if (!checks.target.Check(leaf.target)) {
    return { kind: 'malformed', reason: `the target is not one of ${intent.action}` }
  }
  return undefined
}

function checkDelivery(
  wrapper: Wrapper,
  intent: Intent,
  { keyset, sessionNonce, nowMs, highest }: VerificationContext,
): VerificationFailure | undefined {
  if (wrapper.keysetVersion !== keyset.version) {
    const reason = `sent under keyset version ${wrapper.keysetVersion}, this host has ${keyset.version}`
    return { kind: 'keyset', reason }
  }
  const live = wrapper.sessionNonce !== null
  if (live && wrapper.sessionNonce !== sessionNonce) {
    return { kind: 'nonce', reason: 'the command was sent on another connection' }
  }
  const newer =
    wrapper.epoch > highest.epoch || (wrapper.epoch === highest.epoch && wrapper.sequence > highest.sequence)
  if (!newer) return { kind: 'replay', reason: 'a command as new as this one was taken before' }
  if (intent.expires <= intent.notBefore || intent.expires - intent.notBefore > COMMAND_TTL_MS_MAX) {
    return { kind: 'malformed', reason: 'the intent is valid for no time, or for longer than is allowed' }
  }
  const judgedMs = live ? wrapper.issued : nowMs
  if (live && Math.abs(wrapper.issued - nowMs) > LIVE_CLOCK_SKEW_MS_MAX) {
    return {
      kind: 'expired',
      reason: 'the time of sending is more than a week away from the clock of this host',
    }
  }
  if (judgedMs >= keyset.expires) return { kind: 'keyset', reason: 'the keyset has expired' }
  if (judgedMs < intent.notBefore) return { kind: 'notYet', reason: 'the intent is not valid yet' }
  if (judgedMs >= intent.expires) return { kind: 'expired', reason: 'the intent has expired' }
  return undefined
}

type Part = Exclude<keyof typeof SIGNATURE_DOMAINS, 'keyset'> | 'leaf'

function parsePart<Value>(
  part: Part,
  check: SchemaCheck<Value>,
  bytes: Buffer,
  bytesMax: number,
): Step<Value> {
  const text = decodeUtf8(bytes)
  if (text === undefined) return refused('malformed', `the ${part} is not UTF-8`)
  const parsed = parseStrict(check, text, bytesMax)
  if (parsed.ok) return parsed
  return refused(
    'malformed',
    `the ${part} is not valid at ${parsed.error.path || '/'}: ${parsed.error.reason}`,
  )
}

function refused(kind: VerificationFailure['kind'], reason: string): Step<never> {
  return { ok: false, failure: { kind, reason } }
}
