/**
 * One controller and one agent on this host, as `npm start`, the benches and the pipeline tests run them: real
 * programs, real mutual TLS, state in one folder. The ceremony that a fleet does by hand is done here.
 */
import { existsSync, mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readNetworkNamespace } from '../../agent/platform/linux/host.ts'
import { findPort } from './ports.ts'
import { type Program, runProgram, startProgram } from './program.ts'

export const CONTROLLER = 'controller/main.ts'
export const AGENT = 'agent/main.ts'
const CLI = 'controller/cli/cordon.ts'

/**
 * The agent collects its garbage on the main thread alone: its heap is small, and V8's helper threads would wake
 * for each collection (docs/adr/0006-quiet-agent.md says what was measured).
 */
const AGENT_NODE_ARGS = ['--single-threaded-gc']

export interface Folders {
  readonly controller: string
  readonly agent: string
  /** Homes of operators, each with its keys and session: `operator` is that of `npm run cordon`. */
  readonly operators: string
  readonly logs: string
  /** The only place where this agent kills and quarantines. */
  readonly testRoot: string
}

export interface Ports {
  readonly api: number
  readonly gateway: number
  readonly enrolment: number
}

export interface DeploymentOptions {
  readonly folder: string
  /** Told one line per step that takes a while or makes something. */
  readonly say: (line: string) => void
  /** Operators whose keys are made and trusted, when they are not yet; the first is there from the start. */
  readonly operators: readonly string[]
  readonly agentEnvironment?: Readonly<Record<string, string>>
  readonly controllerEnvironment?: Readonly<Record<string, string>>
}

/** What the agent said when it was ready. */
export interface AgentFacts {
  readonly agentId: string
  readonly pid: number
  readonly sensors: readonly string[]
}

export interface Deployment {
  readonly folders: Folders
  readonly ports: Ports
  readonly apiUrl: string
  readonly controller: Program
  readonly agent: Program
  readonly agentFacts: AgentFacts
  stop(): Promise<void>
}

/** Agent first, so that what it says on leaving is still stored. */
export async function stopDeployment(agent: Program | null, controller: Program | null): Promise<void> {
  await agent?.stop(2_000)
  await controller?.stop(2_000)
}

export function foldersOf(folder: string): Folders {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const real = realpathSync(folder)
  const folders = {
    controller: join(real, 'controller'),
    agent: join(real, 'agent'),
    operators: join(real, 'operators'),
    logs: join(real, 'logs'),
    testRoot: join(real, 'demo'),
  }
  for (const path of Object.values(folders)) mkdirSync(path, { recursive: true, mode: 0o700 })
  return folders
}

export interface PreparedController {
  readonly folders: Folders
  readonly ports: Ports
  readonly environment: Readonly<Record<string, string>>
}

/** Folders, ports, and the ceremony when the folder is new: what a controller needs before it starts. */
export async function prepareController(options: DeploymentOptions): Promise<PreparedController> {
  const folders = foldersOf(options.folder)
  const ports = await choosePorts(join(options.folder, 'ports.json'))
  const environment = controllerEnvironment(folders, ports, options)
  await ensureOperators(folders, environment, options)
  return { folders, ports, environment }
}

/** Starts both programs, after the ceremony when the folder is new. Rejects with what failed and its log. */
export async function startDeployment(options: DeploymentOptions): Promise<Deployment> {
  const { folders, ports } = await prepareController(options)
  const controller = await startController(folders, ports, options)
  try {
    const { agent, agentFacts } = await startAgent(folders, ports, options)
    return {
      folders,
      ports,
      apiUrl: `http://localhost:${ports.api}`,
      controller,
      agent,
      agentFacts,
      stop: () => stopDeployment(agent, controller),
    }
  } catch (error) {
    await controller.stop(2_000)
    throw error
  }
}

/** Ports of the last time when they are free, so that enrolled agents find their way back. */
async function choosePorts(path: string): Promise<Ports> {
  let before: Partial<Ports> = {}
  if (existsSync(path)) before = JSON.parse(readFileSync(path, 'utf8'))
  const ports = {
    api: await findPort(before.api, '127.0.0.1'),
    gateway: await findPort(before.gateway, '127.0.0.1'),
    enrolment: await findPort(before.enrolment, '127.0.0.1'),
  }
  writeFileSync(path, JSON.stringify(ports), { mode: 0o600 })
  return ports
}

export function controllerEnvironment(
  folders: Folders,
  ports: Ports,
  options: Pick<DeploymentOptions, 'controllerEnvironment'>,
): Record<string, string> {
  return {
    CORDON_CONTROLLER_STATE: folders.controller,
    CORDON_CONTROLLER_API_PORT: String(ports.api),
    CORDON_CONTROLLER_GATEWAY_PORT: String(ports.gateway),
    CORDON_CONTROLLER_GATEWAY_ADDRESS: '127.0.0.1',
    CORDON_CONTROLLER_ENROLMENT_PORT: String(ports.enrolment),
    CORDON_CONTROLLER_AGENT_FACING_HOST: '127.0.0.1',
    ...options.controllerEnvironment,
  }
}

/** Root, issuers and keyset on the first start; further operators as they are asked for. */
export async function ensureOperators(
  folders: Folders,
  environment: Record<string, string>,
  options: DeploymentOptions,
): Promise<void> {
  const { say } = options
  for (const name of options.operators) {
    const home = join(folders.operators, name)
    if (existsSync(join(home, 'keys', `${name}.pub.json`))) continue
    const isNew = !existsSync(join(folders.controller, 'authority'))
    if (isNew) say('first start: making root, issuers, keyset and one operator key ...')
    const key = await createOperatorKey(name, home)
    const args = isNew
      ? ['init', '--operator', `${name}:${key}`]
      : ['keyset', 'add', '--name', name, '--public-key', key]
    const ran = await runProgram(CONTROLLER, args, environment)
    if (ran.code !== 0) throw new Error(`cordon-controller ${args[0]} failed:\n${ran.stderr}`)
    for (const line of ran.stdout.trimEnd().split('\n')) say(`  ${line}`)
    if (isNew)
      say(`  made operator key             ${home}/keys: unprotected, so that this start asks nothing`)
  }
}

/** Makes an unprotected Ed25519 key in an operator's home and gives its public half, lower-case hex. */
async function createOperatorKey(name: string, home: string): Promise<string> {
  const ran = await runProgram(CLI, ['keys', 'create', name, '--no-passphrase', '--json'], {
    CORDON_CLI_HOME: home,
  })
  if (ran.code !== 0) throw new Error(`cordon keys create failed:\n${ran.stderr}`)
  const made: { publicKey: string } = JSON.parse(ran.stdout)
  return made.publicKey
}

/** Starts a controller whose ceremony is done. Rejects with its last words when it is not ready. */
export async function startController(
  folders: Folders,
  ports: Ports,
  options: Pick<DeploymentOptions, 'controllerEnvironment'>,
): Promise<Program> {
  const { program } = await startProgram({
    name: 'cordon-controller',
    script: CONTROLLER,
    args: ['run', '--stop-with-stdin'],
    environment: controllerEnvironment(folders, ports, options),
    logPath: join(folders.logs, 'controller.log'),
    readyPrefix: 'READY ',
    readyTimeoutMs: 60_000,
  })
  return program
}

/** Enrols the agent when it is not yet, and starts it. Rejects with its last words when it is not ready. */
export async function startAgent(
  folders: Folders,
  ports: Ports,
  options: Pick<DeploymentOptions, 'say' | 'agentEnvironment' | 'controllerEnvironment'>,
): Promise<{ agent: Program; agentFacts: AgentFacts }> {
  const agentEnvironment = {
    CORDON_AGENT_STATE: folders.agent,
    CORDON_AGENT_GATEWAY_URL: `wss://127.0.0.1:${ports.gateway}`,
    CORDON_AGENT_TEST_ROOT: folders.testRoot,
    CORDON_AGENT_LAUNCHER_NETNS: readNetworkNamespace(),
    CORDON_AGENT_WATCH_PATHS: ['/tmp', '/var/tmp', '/dev/shm', folders.testRoot].join(':'),
    ...options.agentEnvironment,
  }
  if (!existsSync(join(folders.agent, 'identity.json'))) {
    const token = await runProgram(CONTROLLER, ['token'], controllerEnvironment(folders, ports, options))
    if (token.code !== 0) throw new Error(`cordon-controller token failed:\n${token.stderr}`)
    const url = `https://127.0.0.1:${ports.enrolment}`
    const enrolled = await runProgram(AGENT, ['enroll', url, '-'], agentEnvironment, token.stdout)
    if (enrolled.code !== 0) throw new Error(`cordon-agent enroll failed:\n${enrolled.stderr}`)
    options.say(enrolled.stdout.trim())
  }
  const { program: agent, readyLine } = await startProgram({
    name: 'cordon-agent',
    nodeArgs: AGENT_NODE_ARGS,
    script: AGENT,
    args: ['run', '--stop-with-stdin'],
    environment: agentEnvironment,
    logPath: join(folders.logs, 'agent.log'),
    readyPrefix: 'READY ',
    readyTimeoutMs: 60_000,
  })
  return { agent, agentFacts: JSON.parse(readyLine) }
}
