/**
 * A Debian host with what people log on to and administer: sshd, PAM, logind, cron, at. It boots with systemd in
 * namespaces and a control group of its own, on files that are thrown away. What sensors see of it is real; it is
 * the machine's kernel that it runs on.
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { constants } from 'node:os'
import { join } from 'node:path'
import { createNamespace } from '../../agent/actions/isolation/testing/network.ts'
import { ROOT } from '../../scripts/setup/program.ts'
import { type Base, bootContainer, ensureBase } from './container.ts'
import { createControlGroup } from './control-group.ts'

export interface RanInside {
  readonly stdout: string
  readonly stderr: string
  /** 128 and the signal's number when one ended it, as shells tell. */
  readonly status: number
}

export interface RunOptions {
  readonly input?: string
  readonly environment?: Readonly<Record<string, string>>
}

export interface SystemdRoot extends AsyncDisposable {
  /** Its root folder, as this machine sees it. */
  readonly rootPath: string
  /** Of its first process, as this machine numbers it. */
  readonly leaderPid: number
  /** Where its sshd listens, and where its neighbours come from: both loopback without a network. */
  readonly sshAddress: string
  readonly sshPort: number
  readonly neighbourAddress: string
  /** Runs a program inside, as root, to its end, without holding this process up. */
  run(command: readonly string[], options?: RunOptions): Promise<RanInside>
  /** The same; throws with what it said unless it ended with 0. */
  must(command: readonly string[], options?: RunOptions): Promise<string>
  /** Runs a program of the host in its neighbour's network: what it connects to sees it come from elsewhere. */
  runFromNeighbour(command: readonly string[], options?: RunOptions): Promise<RanInside>
}

const PACKAGES = [
  ...['systemd', 'systemd-sysv', 'dbus', 'libpam-systemd', 'openssh-server', 'openssh-client', 'login'],
  ...['passwd', 'cron', 'at', 'procps', 'iproute2', 'sudo'],
]
const SYSTEMD_BASE: Base = {
  // Other packages are another base.
  path: join(
    ROOT,
    'build',
    `systemd-root-${createHash('sha256').update(PACKAGES.join()).digest('hex').slice(0, 8)}`,
  ),
  packages: PACKAGES,
}
const HOST_ADDRESS = '192.0.2.2'
const NEIGHBOUR_ADDRESS = '192.0.2.1'
const SSH_PORT = 22
const COMMAND_MS = 120_000
/** After a program's end, for what it said. */
const OUTPUT_MS = 1_000
const OUTPUT_CHARACTERS_MAX = 4 * 1024 ** 2
const NAMESPACES = ['--mount', '--uts', '--ipc', '--pid', '--cgroup', '--root', '--wd']

/** Why no such host can be started here; null: it can. Makes the base, which takes minutes the first time. */
export function whyNoSystemdRoot(say: (line: string) => void): string | null {
  if (process.geteuid?.() !== 0) return 'booting a host needs root'
  try {
    ensureBase(say, SYSTEMD_BASE)
    return null
  } catch (error) {
    return `no Debian base: ${error instanceof Error ? error.message : String(error)}`
  }
}

/** Boots the host; with `network` it has a neighbour, else nothing but its loopback. Throws when it does not come up. */
export async function startSystemdRoot(options: { readonly network: boolean }): Promise<SystemdRoot> {
  const reason = whyNoSystemdRoot((line) => console.error(`cordon: ${line}`))
  if (reason !== null) throw new Error(reason)
  await using undo = new AsyncDisposableStack()
  const group = undo.use(createControlGroup())
  const container = undo.use(
    await bootContainer({ base: SYSTEMD_BASE, launcher: group.launcher, capabilities: 'all' }),
  )
  const { leaderPid, root } = container
  const neighbour = options.network ? undo.use(createNamespace()) : null
  if (neighbour !== null) await connect(leaderPid, neighbour.name)
  const ownNetwork = `--net=/proc/${leaderPid}/ns/net`
  const enter = (network: string, command: readonly string[], runOptions: RunOptions = {}) =>
    runProgram(
      ['nsenter', '--target', String(leaderPid), ...NAMESPACES, network, '--', ...command],
      runOptions,
    )
  const kept = undo.move()
  return {
    rootPath: root,
    leaderPid,
    sshAddress: neighbour === null ? '127.0.0.1' : HOST_ADDRESS,
    sshPort: SSH_PORT,
    neighbourAddress: neighbour === null ? '127.0.0.1' : NEIGHBOUR_ADDRESS,
    run: (command, runOptions) => enter(ownNetwork, command, runOptions),
    async must(command, runOptions) {
      return must(command, await enter(ownNetwork, command, runOptions))
    },
    runFromNeighbour: (command, runOptions) =>
      enter(neighbour === null ? ownNetwork : `--net=/run/netns/${neighbour.name}`, command, runOptions),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

/** A cable between the host and its neighbour. */
async function connect(leaderPid: number, neighbour: string): Promise<void> {
  const inHost = ['nsenter', '--target', String(leaderPid), '--net', '--', 'ip']
  const inNeighbour = ['ip', '-n', neighbour]
  const steps = [
    [...inHost, 'link', 'add', 'host0', 'type', 'veth', 'peer', 'name', 'host0', 'netns', neighbour],
    [...inHost, 'addr', 'add', `${HOST_ADDRESS}/24`, 'dev', 'host0'],
    [...inHost, 'link', 'set', 'host0', 'up'],
    [...inNeighbour, 'addr', 'add', `${NEIGHBOUR_ADDRESS}/24`, 'dev', 'host0'],
    [...inNeighbour, 'link', 'set', 'host0', 'up'],
  ]
  for (const step of steps) must(step, await runProgram(step, {}))
}

function must(command: readonly string[], ran: RanInside): string {
  if (ran.status !== 0)
    throw new Error(`${command.join(' ')} ended with ${ran.status}:\n${ran.stdout}${ran.stderr}`)
  return ran.stdout
}

function runProgram(command: readonly string[], options: RunOptions): Promise<RanInside> {
  const [program = '', ...words] = command
  const child = spawn(program, words, {
    timeout: COMMAND_MS,
    killSignal: 'SIGKILL',
    env: {
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      LANG: 'C.UTF-8',
      HOME: '/root',
      ...options.environment,
    },
  })
  const said = { stdout: '', stderr: '' }
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream].setEncoding('utf8').on('data', (chunk: string) => {
      said[stream] = (said[stream] + chunk).slice(-OUTPUT_CHARACTERS_MAX)
    })
  }
  // A program that reads nothing may be gone before it is told.
  child.stdin.on('error', () => undefined)
  child.stdin.end(options.input ?? '')
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => {
      const tell = () =>
        resolve({ ...said, status: code ?? 128 + (signal === null ? 0 : constants.signals[signal]) })
      // What a program leaves running may keep its output open for good.
      const timer = setTimeout(tell, OUTPUT_MS)
      child.once('close', () => {
        clearTimeout(timer)
        tell()
      })
    })
  })
}
