/**
 * From a request to the exact bytes that operators sign. Pure: everything it needs to know of hosts, clocks
 * and chance is given to it. What is planned here is stored, shown, signed and delivered byte for byte.
 */
import { formatBreakGlassCode, hashBreakGlassCode } from '../../shared/node/break-glass.ts'
import { createMerkleTree } from '../../shared/node/merkle.ts'
import {
  ACTIONS,
  type ActionName,
  COMMAND_TTL_MS_DEFAULT,
  type CommandClass,
  type Intent,
  type Leaf,
} from '../../shared/protocol/commands.ts'
import { INTENT_BYTES_MAX } from '../../shared/protocol/limits.ts'
import { compileSchema, type SchemaCheck } from '../../shared/protocol/parse.ts'
import { inSchemaOrder } from '../../shared/protocol/schema-order.ts'
import { telemetryListProblems } from '../../shared/protocol/telemetry-list-problems.ts'
import type { Outcome } from '../api/services.ts'
import { type ActionError, ActionRequest } from './action.ts'

/** As the wire message bounds it. */
const LEAF_BYTES_MAX = 8 * 1024
const PROBLEM_CHARACTERS_MAX = 512

export interface TargetHost {
  readonly hostName: string
  readonly keyFingerprint: string
  readonly revoked: boolean
}

export interface PlanContext {
  readonly fleet: string
  readonly hostOf: (agentId: string) => TargetHost | undefined
  readonly nowMs: number
  /** 128 random bits in hex. */
  readonly randomId: () => string
  /** 128 random bits, for the code that ends an isolation on the host itself. */
  readonly randomCode: () => Buffer
}

/** A code and the command whose isolation it ends. The host gets its hash alone. */
export interface PlannedCode {
  readonly commandId: string
  readonly agentId: string
  readonly code: string
}

export interface Planned {
  readonly intent: Intent
  readonly intentBytes: Buffer
  readonly class: CommandClass
  readonly leaves: readonly { readonly leaf: Leaf; readonly bytes: Buffer; readonly hostName: string }[]
  readonly codes: readonly PlannedCode[]
}

const requestCheck = compileSchema(ActionRequest)
const checks = new Map<string, { args: SchemaCheck<unknown>; target: SchemaCheck<unknown> }>(
  (Object.keys(ACTIONS) as ActionName[]).map((name) => [
    name,
    { args: compileSchema(ACTIONS[name].args), target: compileSchema(ACTIONS[name].target) },
  ]),
)

export function planAction(request: ActionRequest, context: PlanContext): Outcome<Planned, ActionError> {
  const problem = requestProblem(request)
  if (problem !== undefined) return invalid(problem)
  const { action } = request
  const leaves: Planned['leaves'][number][] = []
  const codes: PlannedCode[] = []
  const seen = new Set<string>()
  for (const { agentId, target } of request.targets) {
    const host = context.hostOf(agentId)
    if (host === undefined) return { ok: false, error: { kind: 'notFound', what: `host ${agentId}` } }
    if (host.revoked) return invalid(`host ${agentId} is revoked: no command reaches it`)
    if (!/^[0-9a-f]{64}$/.test(host.keyFingerprint)) return invalid(`host ${agentId} has no certificate`)
    const ordered = inSchemaOrder(ACTIONS[action].target, target) as Leaf['target']
    const same = `${agentId} ${JSON.stringify(ordered)}`
    if (seen.has(same)) return invalid('the same target is named twice')
    seen.add(same)
    const agentKeyFingerprint = host.keyFingerprint
    const commandId = context.randomId()
    const leaf: Leaf = { commandId, agentId, agentKeyFingerprint, target: ordered }
    if (action === 'isolateHost') {
      const random = context.randomCode()
      codes.push({ commandId, agentId, code: formatBreakGlassCode(random) })
      leaf.target = { kind: 'host', breakGlassHash: hashBreakGlassCode(random) }
    }
    const bytes = Buffer.from(JSON.stringify(leaf))
    if (bytes.length > LEAF_BYTES_MAX) return invalid(`a target takes more than ${LEAF_BYTES_MAX} bytes`)
    leaves.push({ leaf, bytes, hostName: host.hostName })
  }
  const intent: Intent = {
    v: 1,
    fleet: context.fleet,
    intentId: context.randomId(),
    class: ACTIONS[action].class,
    action,
    args: inSchemaOrder(ACTIONS[action].args, request.args) as Intent['args'],
    reason: request.reason,
    incident: request.incidentId ?? null,
    notBefore: context.nowMs,
    expires: context.nowMs + (request.ttlMs ?? COMMAND_TTL_MS_DEFAULT),
    targetsRoot: createMerkleTree(leaves.map(({ bytes }) => bytes)).root,
    targetsCount: leaves.length,
  }
  const intentBytes = Buffer.from(JSON.stringify(intent))
  if (intentBytes.length > INTENT_BYTES_MAX) return invalid(`it takes more than ${INTENT_BYTES_MAX} bytes`)
  return { ok: true, value: { intent, intentBytes, class: ACTIONS[action].class, leaves, codes } }
}

/** What is wrong with a request in itself, in words; undefined when nothing is. */
export function requestProblem(request: ActionRequest): string | undefined {
  if (!requestCheck.Check(request)) return describe('the request', requestCheck, request)
  const check = checks.get(request.action)
  if (check === undefined) return `there is no action ${String(request.action)}`
  if (request.action === 'setTelemetryLists') {
    const problems = telemetryListProblems(request.args['lists'])
    if (problems.length > 0) return problems.join('; ').slice(0, PROBLEM_CHARACTERS_MAX)
  }
  if (!check.args.Check(request.args)) return describe(`args of ${request.action}`, check.args, request.args)
  for (const { target } of request.targets) {
    if (!check.target.Check(target)) return describe(`a target of ${request.action}`, check.target, target)
    if (target.kind === 'host' && target.breakGlassHash !== null) {
      return 'the break-glass code of a host is made by the controller: breakGlassHash is null'
    }
  }
  return undefined
}

function describe(what: string, check: SchemaCheck<unknown>, value: unknown): string {
  const first = check.Errors(value)[0]
  return `${what}${first === undefined ? '' : ` at ${first.instancePath || '/'}`} ${first?.message ?? 'is not valid'}`.slice(
    0,
    PROBLEM_CHARACTERS_MAX,
  )
}

function invalid(reason: string): { readonly ok: false; readonly error: ActionError } {
  return { ok: false, error: { kind: 'invalid', reason } }
}
