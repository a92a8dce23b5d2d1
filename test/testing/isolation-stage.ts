/**
 * A deployment whose agent runs in a network namespace of its own, and whose controller runs in another one, with
 * a link between them. The test itself stays outside: it speaks to the controller's API through a unix socket.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { vi } from 'vitest'
import { createNamespace } from '../../agent/actions/isolation/testing/network.ts'
import { readNetworkNamespace } from '../../agent/platform/linux/host.ts'
import { AGENT, CONTROLLER, ensureOperators, foldersOf } from '../../scripts/setup/deployment.ts'
import { type Operator, signIn } from '../../scripts/setup/operator.ts'
import { findPort } from '../../scripts/setup/ports.ts'
import { type Program, type Ran, runProgram, startProgram } from '../../scripts/setup/program.ts'
import { createObserver, type Observer, WAIT } from './observer.ts'
import { makeSmallAuthority } from './stage.ts'

export const CONTROLLER_ADDRESS = '10.214.1.1'
const HOST_ADDRESS = '10.214.1.2'
const NAME = 'controller.test'

export interface IsolationStage extends AsyncDisposable {
  readonly agentId: string
  readonly agentState: string
  readonly gatewayPort: number
  readonly operator: Operator
  readonly observer: Observer
  agent(): Program
  startAgent(environment?: Readonly<Record<string, string>>): Promise<void>
  /** The agent's program, beside the running one or without one. */
  runAgent(args: readonly string[], input?: string): Promise<Ran>
  /** Where the agent's host finds the controller by its name. */
  nameController(address: string): void
  /** In the agent's namespace. */
  run(program: string, ...args: readonly string[]): string
  /** In the controller's namespace. */
  runOutside(program: string, ...args: readonly string[]): string
  ruleset(): string
}

export async function startIsolationStage(folder: string): Promise<IsolationStage> {
  const host = createNamespace()
  const outside = createNamespace()
  const hosts = join(folder, 'hosts')
  const inHost = ['ip', 'netns', 'exec', host.name, 'sh', '-c', bindHosts(hosts), 'sh']
  const inOutside = ['ip', 'netns', 'exec', outside.name]
  let agent: Program | null = null
  let controller: Program | null = null
  let relay: ChildProcess | null = null
  const listener = createServer()
  const dispose = async () => {
    await agent?.stop(2_000)
    await controller?.stop(2_000)
    relay?.kill('SIGKILL')
    listener.close()
    host[Symbol.dispose]()
    outside[Symbol.dispose]()
  }
  try {
    link(outside.name, host.name)
    const nameController = (address: string) =>
      writeFileSync(hosts, `127.0.0.1 localhost\n${address} ${NAME}\n`)
    nameController(CONTROLLER_ADDRESS)
    const folders = foldersOf(folder)
    const ports = {
      api: await findPort(undefined, '127.0.0.1'),
      gateway: await findPort(undefined, '127.0.0.1'),
      enrolment: await findPort(undefined, '127.0.0.1'),
    }
    const environment = {
      CORDON_CONTROLLER_STATE: folders.controller,
      CORDON_CONTROLLER_API_PORT: String(ports.api),
      CORDON_CONTROLLER_GATEWAY_PORT: String(ports.gateway),
      CORDON_CONTROLLER_GATEWAY_ADDRESS: '0.0.0.0',
      CORDON_CONTROLLER_ENROLMENT_PORT: String(ports.enrolment),
      CORDON_CONTROLLER_AGENT_FACING_HOST: NAME,
    }
    await makeSmallAuthority(folders.controller)
    const say = () => undefined
    await ensureOperators(folders, environment, { folder, say, operators: ['tester'] })
    controller = (
      await startProgram({
        name: 'cordon-controller',
        script: CONTROLLER,
        args: ['run', '--stop-with-stdin'],
        environment,
        within: inOutside,
        logPath: join(folders.logs, 'controller.log'),
        readyPrefix: 'READY ',
        readyTimeoutMs: 60_000,
      })
    ).program
    relay = await bridgeApi(inOutside, ports.api, join(folder, 'api.sock'), listener)

    const agentEnvironment = {
      CORDON_AGENT_STATE: folders.agent,
      CORDON_AGENT_GATEWAY_URL: `wss://${NAME}:${ports.gateway}`,
      CORDON_AGENT_LAUNCHER_NETNS: readNetworkNamespace(),
      CORDON_AGENT_SENSORS: 'polling',
      CORDON_AGENT_WATCH_PATHS: folders.testRoot,
    }
    const runAgent = (args: readonly string[], input = '') =>
      runProgram(AGENT, args, agentEnvironment, input, inHost)
    const token = await runProgram(CONTROLLER, ['token'], environment)
    const enrolled = await runAgent(['enroll', `https://${NAME}:${ports.enrolment}`, '-'], token.stdout)
    if (enrolled.code !== 0) throw new Error(`cordon-agent enroll failed:\n${enrolled.stderr}`)
    const startAgent = async (more: Readonly<Record<string, string>> = {}) => {
      const started = await startProgram({
        name: 'cordon-agent',
        script: AGENT,
        args: ['run', '--stop-with-stdin'],
        environment: { ...agentEnvironment, ...more },
        within: inHost,
        logPath: join(folders.logs, 'agent.log'),
        readyPrefix: 'READY ',
        readyTimeoutMs: 60_000,
      })
      agent = started.program
      return JSON.parse(started.readyLine) as { readonly agentId: string }
    }
    const { agentId } = await startAgent()
    const operator = await signIn({
      name: 'tester',
      home: join(folders.operators, 'tester'),
      apiUrl: `http://localhost:${ports.api}`,
      controllerEnvironment: environment,
    })
    const runIn =
      (namespace: string) =>
      (program: string, ...args: readonly string[]) =>
        execFileSync('ip', ['netns', 'exec', namespace, program, ...args], {
          encoding: 'utf8',
          timeout: 20_000,
        })
    return {
      agentId,
      agentState: folders.agent,
      gatewayPort: ports.gateway,
      operator,
      observer: createObserver(operator),
      agent() {
        if (agent === null) throw new Error('the agent was not started')
        return agent
      },
      async startAgent(more) {
        await startAgent(more)
      },
      runAgent,
      nameController,
      run: runIn(host.name),
      runOutside: runIn(outside.name),
      ruleset: () => runIn(host.name)('nft', 'list', 'ruleset'),
      [Symbol.asyncDispose]: dispose,
    }
  } catch (error) {
    await dispose()
    throw error
  }
}

function link(outside: string, host: string): void {
  const ip = (namespace: string, line: string) =>
    execFileSync('ip', ['-n', namespace, ...line.split(' ')], { timeout: 20_000 })
  ip(outside, `link add up0 type veth peer name up0 netns ${host}`)
  for (const [namespace, address] of [
    [outside, CONTROLLER_ADDRESS],
    [host, HOST_ADDRESS],
  ] as const) {
    ip(namespace, `addr add ${address}/24 dev up0`)
    ip(namespace, 'link set up0 up')
  }
}

/** The host has a file of names of its own; its programs see it alone. */
function bindHosts(hosts: string): string {
  return `mount --bind '${hosts}' /etc/hosts && exec "$@"`
}

/** The controller's API under the same port for this process, which is in another namespace. */
async function bridgeApi(
  within: readonly string[],
  port: number,
  socketPath: string,
  listener: ReturnType<typeof createServer>,
): Promise<ChildProcess> {
  const code = `const net = require('node:net')
net.createServer((near) => {
  const far = net.connect(${port}, '127.0.0.1')
  near.pipe(far).pipe(near)
  near.on('error', () => far.destroy())
  far.on('error', () => near.destroy())
}).listen(${JSON.stringify(socketPath)}, () => console.log('ready'))`
  const [command = 'ip', ...rest] = within
  const relay = spawn(command, [...rest, process.execPath, '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let isReady = false
  relay.stdout?.once('data', () => {
    isReady = true
  })
  await vi.waitFor(() => {
    if (!isReady) throw new Error('the relay is not ready')
  }, WAIT)
  listener.on('connection', (near) => {
    const far = connect(socketPath)
    near.pipe(far).pipe(near)
    near.on('error', () => far.destroy())
    far.on('error', () => near.destroy())
  })
  await new Promise<void>((resolve) => listener.listen(port, '127.0.0.1', resolve))
  return relay
}
