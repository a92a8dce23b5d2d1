/**
 * What stands between a controller and an operator's signature. The controller makes the bytes; here they are
 * decoded and held against what the operator asked for, before anything is shown or signed. A controller that
 * was taken over can refuse to plan; it cannot get something else signed.
 */
import { isDeepStrictEqual } from 'node:util'
import { createMerkleTree } from '../../shared/node/merkle.ts'
import { decodeBase64, decodeUtf8 } from '../../shared/node/signing.ts'
import {
  ACTIONS,
  COMMAND_TTL_MS_DEFAULT,
  COMMAND_TTL_MS_MAX,
  Intent,
  Leaf,
} from '../../shared/protocol/commands.ts'
import { INTENT_BYTES_MAX } from '../../shared/protocol/limits.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import type { ActionPlan, ActionRequest } from '../dispatch/action.ts'

/** Clocks of operator and controller may differ by this much. */
const CLOCK_SKEW_MS = 2 * 60_000
const LEAF_BYTES_MAX = 8 * 1024

const intentCheck = compileSchema(Intent)
const leafCheck = compileSchema(Leaf)
const argsChecks = new Map(Object.entries(ACTIONS).map(([name, { args }]) => [name, compileSchema(args)]))
const targetChecks = new Map(
  Object.entries(ACTIONS).map(([name, { target }]) => [name, compileSchema(target)]),
)

export interface CheckedPlan {
  /** The very bytes that are signed, and all that is shown comes from. */
  readonly intentBytes: Uint8Array
  readonly intent: Intent
  readonly leaves: readonly Leaf[]
}

export type PlanCheck =
  | { readonly ok: true; readonly value: CheckedPlan }
  | { readonly ok: false; readonly reason: string }

export interface PlanContext {
  readonly nowMs: number
  /** The fleet that this context belongs to. */
  readonly fleet: string
}

/** Whether a plan is whole and means one thing: what a second operator can know who asked for nothing. */
export function checkPlan(plan: ActionPlan, { nowMs, fleet }: PlanContext): PlanCheck {
  const intentBytes = decodeBase64(plan.intent)
  const text = intentBytes && decodeUtf8(intentBytes)
  if (!intentBytes || text === undefined) return refuse('the intent is not base64 of UTF-8')
  const parsed = parseStrict(intentCheck, text, INTENT_BYTES_MAX)
  if (!parsed.ok) return refuse(`the intent cannot be read: ${parsed.error.reason}`)
  const intent = parsed.value
  if (!(argsChecks.get(intent.action)?.Check(intent.args) ?? false))
    return refuse('the arguments are not of this action')

  const leaves: Leaf[] = []
  const leafBytes: Uint8Array[] = []
  for (const encoded of plan.leaves) {
    const bytes = decodeBase64(encoded)
    const leafText = bytes && decodeUtf8(bytes)
    if (!bytes || leafText === undefined) return refuse('a target is not base64 of UTF-8')
    const leaf = parseStrict(leafCheck, leafText, LEAF_BYTES_MAX)
    if (!leaf.ok) return refuse(`a target cannot be read: ${leaf.error.reason}`)
    if (!(targetChecks.get(intent.action)?.Check(leaf.value.target) ?? false)) {
      return refuse('a target is not of this action')
    }
    leaves.push(leaf.value)
    leafBytes.push(bytes)
  }
  if (leaves.length === 0 || intent.targetsCount !== leaves.length) {
    return refuse(`the intent is for ${intent.targetsCount} targets, ${leaves.length} are listed`)
  }
  if (createMerkleTree(leafBytes).root !== intent.targetsRoot) {
    return refuse('the intent is for other targets than the listed ones')
  }
  if (new Set(leaves.map(({ commandId }) => commandId)).size !== leaves.length) {
    return refuse('two targets have one command id')
  }
  if (intent.intentId !== plan.intentId) return refuse('the intent has another id than the plan')
  if (intent.fleet !== fleet) return refuse('the intent is for another fleet')
  if (intent.class !== ACTIONS[intent.action].class) {
    return refuse(`class ${intent.class} is not the class of this action`)
  }
  if (
    !isDeepStrictEqual(
      plan.actions.map(({ id }) => id),
      leaves.map(({ commandId }) => commandId),
    )
  ) {
    return refuse('the actions to follow are not those of the intent')
  }
  if (intent.expires <= nowMs) return refuse('the intent has expired')
  if (intent.notBefore > nowMs + CLOCK_SKEW_MS) return refuse('the intent begins in the future')
  if (intent.expires - intent.notBefore > COMMAND_TTL_MS_MAX)
    return refuse('the intent lives longer than a day')
  return { ok: true, value: { intentBytes, intent, leaves } }
}

/** Whether a whole plan says what was asked for: action, arguments, targets, reason, incident, how long. */
export function checkAsAsked(
  plan: CheckedPlan,
  request: ActionRequest,
  fingerprints: ReadonlyMap<string, string>,
  nowMs: number,
): PlanCheck {
  const { intent, leaves } = plan
  if (intent.action !== request.action)
    return refuse(`the intent is to ${intent.action}, asked was ${request.action}`)
  if (!isDeepStrictEqual(intent.args, request.args))
    return refuse('the arguments are not those that were asked for')
  if (intent.reason !== request.reason) return refuse('the reason is not the one that was given')
  if (intent.incident !== (request.incidentId ?? null))
    return refuse('the incident is not the one that was named')
  if (leaves.length !== request.targets.length) {
    return refuse(`the intent is for ${leaves.length} targets, asked were ${request.targets.length}`)
  }
  for (const [index, leaf] of leaves.entries()) {
    const asked = request.targets[index]
    if (leaf.agentId !== asked?.agentId) return refuse('a target is on another host than asked')
    if (!isDeepStrictEqual(asAsked(leaf.target), asked.target))
      return refuse('a target is not the one that was asked for')
    if (leaf.agentKeyFingerprint !== fingerprints.get(leaf.agentId)) {
      return refuse('a target names another key than its host has')
    }
  }
  const ttlMs = request.ttlMs ?? COMMAND_TTL_MS_DEFAULT
  if (intent.expires > nowMs + ttlMs + CLOCK_SKEW_MS || intent.expires - intent.notBefore > ttlMs) {
    return refuse('the intent lives longer than asked')
  }
  return { ok: true, value: plan }
}

/** The controller alone adds to a target what only it can make: the hash of a host's break-glass code. */
function asAsked(target: Leaf['target']): Leaf['target'] {
  return target.kind === 'host' ? { ...target, breakGlassHash: null } : target
}

function refuse(reason: string): PlanCheck {
  return { ok: false, reason }
}
