/** From asking to done: plan, check, show, confirm, sign, hand in, follow. */

import { pause } from '../../shared/node/loop.ts'
import { decodeBase64, decodeUtf8, sha256Hex, signBytes } from '../../shared/node/signing.ts'
import { ACTIONS, COMMAND_TTL_MS_MAX, Keyset, type Leaf } from '../../shared/protocol/commands.ts'
import { KEYSET_BYTES_MAX } from '../../shared/protocol/limits.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import { KeysetAnswer } from '../api/schemas.ts'
import type { Host } from '../api/services.ts'
import { Action, ActionPlan, type ActionRequest, type ActionState, FINAL_STATES } from '../dispatch/action.ts'
import { type CommandContext, EXIT, type ExitCode, Failure, usage } from './command.ts'
import { chooseOperatorKey, openOperatorKey } from './operator-keys.ts'
import { type CheckedPlan, checkAsAsked, checkPlan, type PlanCheck } from './plan-check.ts'
import { printable } from './printable.ts'
import { createProgress } from './progress.ts'
import { ACTION_COLUMNS, incidentId } from './records.ts'
import { argumentLines } from './telemetry-text.ts'

const WAIT_MS_DEFAULT = 120_000
const POLL_MS = 300
const WITHDRAW_MS = 5_000
const keysetCheck = compileSchema(Keyset)

/** Common flags of verbs that ask for an action, into the request. */
export function requestFrom(
  context: CommandContext,
  asked: Pick<ActionRequest, 'action' | 'args' | 'targets'>,
): ActionRequest {
  const { options } = context
  const incident = options.text('incident')
  const ttlMs = options.duration('ttl')
  if (ttlMs !== undefined && (ttlMs < 1_000 || ttlMs > COMMAND_TTL_MS_MAX))
    throw usage('--ttl is from 1s to 1d')
  const idempotencyKey = options.text('idempotencyKey')
  return {
    ...asked,
    reason: options.required('reason'),
    ...(incident === undefined ? {} : { incidentId: incidentId(incident) }),
    ...(ttlMs === undefined ? {} : { ttlMs }),
    ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
  }
}

/** Carries a request out on `hosts`; the answer is the exit code of the command. */
export async function carryOut(
  context: CommandContext,
  request: ActionRequest,
  hosts: readonly Host[],
): Promise<ExitCode> {
  const { options, note, print } = context
  const commandClass = ACTIONS[request.action].class
  if (options.has('dryRun') && commandClass === 'R') {
    note('Nothing was sent: this only reads, and would be queued at once.')
    print.block(request, [describeRequest(request, hosts)], request.action)
    return EXIT.ok
  }
  if (commandClass !== 'R') {
    assertCanConfirm(context)
    // Before anything is planned: without a key nothing could be signed.
    if (!options.has('dryRun')) chooseOperatorKey(context.home, options.text('key'))
  }
  const plan = await context.client().send('POST', '/actions', ActionPlan, request)
  try {
    const checked = must(checkPlan(plan, { nowMs: context.io.clock(), fleet: await fleetOf(context) }))
    const fingerprints = new Map(hosts.map(({ agentId, keyFingerprint }) => [agentId, keyFingerprint]))
    must(checkAsAsked(checked, request, fingerprints, context.io.clock()))
    if (commandClass === 'R' || plan.signaturesNeeded === 0) return finish(context, plan)
    const names = new Map(hosts.map(({ agentId, hostName }) => [agentId, hostName]))
    show(context, checked, names)
    if (options.has('dryRun')) {
      await withdraw(context, plan, 'dry run')
      note('Dry run: nothing was signed, and the plan is cancelled.')
      print.block(plan, [], plan.intentId)
      return EXIT.ok
    }
    await confirm(context, checked, names)
    return await finish(context, await approve(context, checked))
  } catch (error) {
    // Refused here, declined or interrupted: what nobody signed does not stay open. After the signature,
    // an interruption leaves the action to run.
    if (commandClass !== 'R' && !(error instanceof Failure && error.exitCode === EXIT.waitTimedOut)) {
      await withdrawUnsigned(context, plan)
    }
    throw error
  }
}

/** Signs what another operator planned. All that can be known of it is what its bytes say. */
export async function approvePlan(
  context: CommandContext,
  action: Action,
  hosts: readonly Host[],
): Promise<ExitCode> {
  assertCanConfirm(context)
  const plan = await context.client().get(`/intents/${action.intentId}`, ActionPlan)
  const checked = must(checkPlan(plan, { nowMs: context.io.clock(), fleet: await fleetOf(context) }))
  if (!checked.leaves.some(({ commandId }) => commandId === action.id)) {
    throw refused('the intent does not hold the action that was named')
  }
  if (plan.signaturesNeeded === 0) {
    context.note('No signature is needed any more.')
    return finish(context, plan)
  }
  const names = new Map(hosts.map(({ agentId, hostName }) => [agentId, hostName]))
  show(context, checked, names)
  if (context.options.has('dryRun')) return EXIT.ok
  await confirm(context, checked, names)
  return finish(context, await approve(context, checked))
}

function must(check: PlanCheck): CheckedPlan {
  if (check.ok) return check.value
  throw refused(check.reason)
}

function refused(reason: string): Failure {
  return new Failure(
    EXIT.failed,
    'planRefused',
    `nothing was signed: ${printable(reason)}`,
    'The controller answered with something else than was asked for. Tell whoever runs it.',
  )
}

/** The fleet of this context: kept from the first sign-in on, so that a controller cannot change it. */
export async function fleetOf(context: CommandContext): Promise<string> {
  const contexts = context.home.read()
  const entry = contexts.contexts[context.contextName]
  if (entry?.fleet && entry.url === context.url) return entry.fleet
  const keyset = await readKeyset(context)
  if (!keyset) throw new Failure(EXIT.failed, 'keyset', 'the controller has no keyset that can be read')
  if (entry && entry.url === context.url) {
    contexts.contexts[context.contextName] = { ...entry, fleet: keyset.fleet }
    context.home.write(contexts)
  }
  return keyset.fleet
}

export async function readKeyset(context: CommandContext): Promise<Keyset | undefined> {
  const answered = await context.client().get('/keyset', KeysetAnswer)
  const bytes = decodeBase64(answered.keyset)
  const text = bytes && decodeUtf8(bytes)
  const parsed = text === undefined ? undefined : parseStrict(keysetCheck, text, KEYSET_BYTES_MAX)
  return parsed?.ok ? parsed.value : undefined
}

function show(
  context: CommandContext,
  { intent, leaves, intentBytes }: CheckedPlan,
  names: ReadonlyMap<string, string>,
) {
  const { print, io } = context
  const lines = [
    `To be signed  ${intent.action}, class ${intent.class}: ${ACTIONS[intent.action].summary}`,
    ...argumentLines(intent),
    `Reason        ${printable(intent.reason)}`,
    `Incident      ${printable(intent.incident ?? '-')}`,
    `Valid         ${print.time(intent.notBefore)} to ${print.time(intent.expires)}`,
    `Targets       ${intent.targetsCount}`,
    ...leaves.map((leaf) => `  ${hostText(leaf, names)}  ${describeTarget(leaf.target)}`),
    `SHA-256       ${sha256Hex(intentBytes)}`,
  ]
  io.stderr.write(`${lines.join('\n')}\n`)
}

function hostText(leaf: Leaf, names: ReadonlyMap<string, string>): string {
  return `${printable(names.get(leaf.agentId) ?? 'unknown host')} (${leaf.agentId.slice(0, 8)})`
}

export function describeTarget(target: Leaf['target']): string {
  switch (target.kind) {
    case 'process': {
      const content =
        target.executableSha256 === null ? 'executable never examined' : `SHA-256 ${target.executableSha256}`
      return `process ${target.pid}, started at tick ${target.startTicks} of boot ${target.bootId}, ${content}`
    }
    case 'file':
      return `file ${printable(target.path)}, inode ${target.inode ?? '-'}, SHA-256 ${target.sha256}`
    case 'quarantinedFile':
      return `file ${printable(target.path)} out of quarantine ${target.quarantineId}, SHA-256 ${target.sha256}`
    case 'evidenceFile':
      return `file ${printable(target.path)}, whatever it holds by then`
    case 'path':
      return `path ${printable(target.path)}`
    case 'host':
      return target.breakGlassHash === null
        ? 'the whole host'
        : `the whole host; SHA-256 of its break-glass code ${target.breakGlassHash}`
  }
}

function describeRequest(request: ActionRequest, hosts: readonly Host[]): string {
  const names = new Map(hosts.map(({ agentId, hostName }) => [agentId, hostName]))
  return request.targets
    .map(
      ({ agentId, target }) =>
        `${request.action} on ${printable(names.get(agentId) ?? agentId)}: ${describeTarget(target)}`,
    )
    .join('\n')
}

function assertCanConfirm({ options, io }: CommandContext): void {
  if (options.has('yes') || options.has('dryRun') || io.stdin.isTerminal) return
  throw usage(
    'nobody is there to confirm: standard input is no terminal',
    'Add --yes, or --dry-run to look first.',
  )
}

async function confirm(
  context: CommandContext,
  plan: CheckedPlan,
  names: ReadonlyMap<string, string>,
): Promise<void> {
  const { options, io } = context
  if (options.has('yes')) return
  const hosts = [...new Set(plan.leaves.map((leaf) => printable(names.get(leaf.agentId) ?? leaf.agentId)))]
  const shown =
    hosts.length > 5 ? `${hosts.slice(0, 5).join(', ')} and ${hosts.length - 5} more` : hosts.join(', ')
  const typed = await io.stdin.ask(`Sign ${plan.intent.action} on ${shown}? [y/N] `, false)
  if (typed === null || !/^y(es)?$/i.test(typed.trim())) {
    throw new Failure(EXIT.cancelled, 'cancelled', 'cancelled: nothing was signed')
  }
}

async function approve(context: CommandContext, plan: CheckedPlan): Promise<ActionPlan> {
  const facts = chooseOperatorKey(context.home, context.options.text('key'))
  const key = await openOperatorKey(context.home, facts, () =>
    askPassphrase(context, `Passphrase of key ${facts.name}: `),
  )
  const signature = signBytes('intent', plan.intentBytes, key)
  return context
    .client()
    .send('POST', `/intents/${plan.intent.intentId}/approvals`, ActionPlan, { signature })
}

async function askPassphrase({ io, options }: CommandContext, prompt: string): Promise<string> {
  const typed = options.has('passphraseStdin')
    ? (await io.stdin.readAll()).replace(/\r?\n$/, '')
    : io.stdin.isTerminal
      ? await io.stdin.ask(prompt, true)
      : null
  if (typed === null || typed === '') {
    throw usage(
      'the passphrase of the key is needed',
      'Type it, or pipe it with --passphrase-stdin and --yes.',
    )
  }
  return typed
}

async function withdraw(context: CommandContext, plan: ActionPlan, reason: string): Promise<void> {
  // With a signal of its own: Ctrl-C at the question must still take the plan back.
  const client = context.client(AbortSignal.timeout(WITHDRAW_MS))
  for (const { id } of plan.actions) {
    await client.send('POST', `/actions/${id}/cancel`, Action, { reason })
  }
}

async function withdrawUnsigned(context: CommandContext, plan: ActionPlan): Promise<void> {
  try {
    const client = context.client(AbortSignal.timeout(WITHDRAW_MS))
    const live = await client.get(`/intents/${plan.intentId}`, ActionPlan)
    if (live.actions.every(({ state }) => WAITING.has(state))) await withdraw(context, live, 'not signed')
  } catch {
    context.note('The plan could not be cancelled; it expires by itself, and nobody signed it.')
  }
}

const WAITING: ReadonlySet<ActionState> = new Set<ActionState>(['requested', 'awaitingApproval'])

/** Shows where the actions stand, after following them when asked to wait. */
async function finish(context: CommandContext, plan: ActionPlan): Promise<ExitCode> {
  const { options, note, print } = context
  const waits = options.has('wait') && plan.signaturesNeeded === 0
  const ids = plan.actions.map(({ id }) => id)
  const actions = waits ? await follow(context, ids) : plan.actions
  print.list(actions, ACTION_COLUMNS(print), { name: ({ id }) => id, none: 'No actions.' })
  if (plan.signaturesNeeded > 0) {
    note(`Waits for ${plan.signaturesNeeded} more signature(s): cordon action approve ${ids[0]?.slice(0, 8)}`)
    return EXIT.awaitsApproval
  }
  return waits ? exitOf(actions) : EXIT.ok
}

export function exitOf(actions: readonly Action[]): ExitCode {
  const states: readonly ActionState[] = actions.map(({ state }) => state)
  const good = states.filter((state) => state === 'done').length
  if (good === states.length) return EXIT.ok
  if (good > 0) return EXIT.partly
  return states.every((state) => state === 'cancelled') ? EXIT.cancelled : EXIT.failed
}

/** Reads the actions until each is final, and tells each step once. Ends with exit 8 when time is up. */
export async function follow(context: CommandContext, ids: readonly string[]): Promise<readonly Action[]> {
  const { io, options, note, print } = context
  const untilMs = io.clock() + (options.duration('timeout') ?? WAIT_MS_DEFAULT)
  const told = new Map<string, number>()
  const progress = createProgress(context)
  for (;;) {
    const actions: Action[] = []
    for (const id of ids) actions.push(await context.client().get(`/actions/${id}`, Action))
    for (const action of actions) {
      for (const step of action.steps.slice(told.get(action.id) ?? 0)) {
        progress.end()
        note(`${print.moment(step.at)}  ${printable(action.hostName)}  ${stepText(step)}`)
      }
      told.set(action.id, action.steps.length)
      if (action.progress) progress.update(action.progress.receivedBytes, action.progress.sizeBytes)
    }
    if (actions.every(({ state }) => state === 'unknown' || FINAL_STATES.has(state))) {
      progress.end()
      return actions
    }
    if (io.clock() >= untilMs) {
      throw new Failure(
        EXIT.waitTimedOut,
        'waitTimedOut',
        'not finished in time; it goes on without this program',
      )
    }
    await pause(POLL_MS, io.signal)
    if (io.signal.aborted)
      throw new Failure(EXIT.interrupted, 'interrupted', 'interrupted; the action goes on')
  }
}

export function stepText(step: Action['steps'][number]): string {
  const parts = [step.state.padEnd(16), step.by, ...(step.reason === '' ? [] : [step.reason])]
  return printable(parts.join('  '))
}
