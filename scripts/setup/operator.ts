/**
 * An operator of its own for demo, benches and pipeline tests: signs in and acts through the public API alone,
 * with the checks and the signature of the operators' own program.
 */
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Static, TSchema } from 'typebox'
import { Actions, Hosts, KeysetAnswer, SessionAnswer } from '../../controller/api/schemas.ts'
import { createClient } from '../../controller/cli/client.ts'
import { createHome } from '../../controller/cli/home.ts'
import { chooseOperatorKey, openOperatorKey } from '../../controller/cli/operator-keys.ts'
import { checkAsAsked, checkPlan } from '../../controller/cli/plan-check.ts'
import { type Action, ActionPlan, type ActionRequest } from '../../controller/dispatch/action.ts'
import { signBytes } from '../../shared/node/signing.ts'
import { Keyset } from '../../shared/protocol/commands.ts'
import { KEYSET_BYTES_MAX } from '../../shared/protocol/limits.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import { CONTROLLER } from './deployment.ts'
import { runProgram } from './program.ts'

export interface Operator {
  get<Schema extends TSchema>(
    path: string,
    schema: Schema,
    query?: Readonly<Record<string, string | number | undefined>>,
  ): Promise<Static<Schema>>
  send<Schema extends TSchema>(path: string, schema: Schema, body: object): Promise<Static<Schema>>
  /** Plans, checks what came back, signs and approves. Returns the actions, which are on their way. */
  act(request: ActionRequest): Promise<readonly Action[]>
  actions(incidentId: string): Promise<readonly Action[]>
}

const keysetCheck = compileSchema(Keyset)

/** Makes the user on the first call; its password stays in the operator's home, mode 0600. */
async function ensureUser(name: string, home: string, environment: Record<string, string>): Promise<string> {
  const path = join(home, 'password')
  if (existsSync(path)) return readFileSync(path, 'utf8')
  const password = randomBytes(24).toString('base64url')
  const made = await runProgram(CONTROLLER, ['user', name, '--role', 'responder'], environment, password)
  if (made.code !== 0) throw new Error(`cordon-controller user failed:\n${made.stderr}`)
  writeFileSync(path, password, { mode: 0o600 })
  return password
}

export interface OperatorOptions {
  readonly name: string
  /** Folder with the operator's key (`keys/`). */
  readonly home: string
  readonly apiUrl: string
  readonly controllerEnvironment: Record<string, string>
}

/** Signs in. Rejects when the user cannot be made or the key is missing. */
export async function signIn(options: OperatorOptions): Promise<Operator> {
  const password = await ensureUser(options.name, options.home, options.controllerEnvironment)
  const never = new AbortController().signal
  const connect = (token: string | null) =>
    createClient({ url: options.apiUrl, token, timeoutMs: 30_000, signal: never, warn: () => undefined })
  const session = await connect(null).send('POST', '/auth/login', SessionAnswer, {
    name: options.name,
    password,
    kind: 'bearer',
  })
  const client = connect(session.token)
  const home = createHome(options.home)
  const facts = chooseOperatorKey(home, undefined)
  const key = await openOperatorKey(home, facts, async () => '')
  const { keyset } = await client.get('/keyset', KeysetAnswer)
  const parsed = parseStrict(keysetCheck, Buffer.from(keyset, 'base64').toString('utf8'), KEYSET_BYTES_MAX)
  if (!parsed.ok) throw new Error(`the controller's keyset cannot be read: ${parsed.error.reason}`)
  const { fleet } = parsed.value
  const { hosts } = await client.get('/hosts', Hosts)
  const fingerprints = new Map(hosts.map((host) => [host.agentId, host.keyFingerprint]))

  return {
    get: (path, schema, query) => client.get(path, schema, query),
    send: (path, schema, body) => client.send('POST', path, schema, body),
    async act(request) {
      const plan = await client.send('POST', '/actions', ActionPlan, request)
      if (plan.signaturesNeeded === 0) return plan.actions
      const nowMs = Date.now()
      const whole = checkPlan(plan, { nowMs, fleet })
      if (!whole.ok) throw new Error(`the plan is not signed: ${whole.reason}`)
      const asked = checkAsAsked(whole.value, request, fingerprints, nowMs)
      if (!asked.ok) throw new Error(`the plan is not signed: ${asked.reason}`)
      const signature = signBytes('intent', whole.value.intentBytes, key)
      const path = `/intents/${plan.intentId}/approvals`
      return (await client.send('POST', path, ActionPlan, { signature })).actions
    },
    actions: async (incidentId) =>
      (await client.get('/actions', Actions, { incidentId, limit: 1_000 })).actions,
  }
}
