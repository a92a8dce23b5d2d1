/**
 * A Debian host that boots with systemd in a container of the test's own: a network without devices, a file system
 * that is thrown away. Kernel programs and process numbers are the machine's, so tests only read them.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { ROOT } from '../../scripts/setup/program.ts'
import { CONTAINERS, ensureSystemPrograms } from '../../scripts/setup/system-packages.ts'
import { waitUntil } from '../../scripts/setup/wait-until.ts'

export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export interface Container extends AsyncDisposable {
  /** The container's root folder, as this machine sees it. */
  readonly root: string
  /** Of the first process inside, as this machine numbers it. */
  readonly leaderPid: number
  /** Runs one program inside, as root, to its end. */
  run(...command: readonly string[]): Ran
  /** The same; throws with what it said unless it ended with 0. */
  must(...command: readonly string[]): string
  /** Of this machine, of processes inside a unit's control group. */
  unitPids(unit: string): readonly number[]
  /** Ends the boot and starts another on the same files. */
  reboot(): Promise<void>
}

/** What debootstrap makes once, in build/. */
export interface Base {
  readonly path: string
  /** Beside those of the variant minbase. */
  readonly packages: readonly string[]
}

export interface BootOptions {
  readonly base?: Base
  /** What starts the program behind it in its own place, as env(1) does. */
  readonly launcher?: readonly string[]
  readonly capabilities?: string
}

const PLAIN_BASE: Base = {
  path: join(ROOT, 'build', 'debian-bookworm'),
  packages: ['systemd', 'systemd-sysv', 'dbus', 'nftables', 'iproute2'],
}
const MIRROR = 'http://deb.debian.org/debian'
const BOOT_MS = 120_000
const COMMAND_MS = 120_000
/** What the agent's unit asks for; nspawn gives and allows less by itself. */
const CAPABILITIES = 'CAP_BPF,CAP_PERFMON,CAP_SYS_RESOURCE,CAP_NET_ADMIN,CAP_SYS_PTRACE'
const SYSTEM_CALLS = 'bpf perf_event_open fanotify_init fanotify_mark open_by_handle_at'

/** Makes the base once, in build/, from Debian's mirror. Throws with the reason when it cannot be made. */
export function ensureBase(say: (line: string) => void, base = PLAIN_BASE): void {
  const system = ensureSystemPrograms(CONTAINERS, say)
  if (system.kind === 'missing') throw new Error(system.mend)
  if (existsSync(base.path)) return
  const unfinished = `${base.path}.${process.pid}`
  mkdirSync(join(ROOT, 'build'), { recursive: true })
  try {
    execFileSync(
      'debootstrap',
      ['--variant=minbase', `--include=${base.packages.join(',')}`, 'bookworm', unfinished, MIRROR],
      {
        stdio: 'ignore',
        timeout: 900_000,
      },
    )
    renameSync(unfinished, base.path)
  } finally {
    rmSync(unfinished, { recursive: true, force: true })
  }
}

export async function bootContainer(options: BootOptions = {}): Promise<Container> {
  const work = mkdtempSync(join(tmpdir(), 'cordon-container-'))
  const root = join(work, 'root')
  for (const folder of ['upper', 'work', 'root']) mkdirSync(join(work, folder))
  const layers = `lowerdir=${(options.base ?? PLAIN_BASE).path},upperdir=${join(work, 'upper')},workdir=${join(work, 'work')}`
  execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', layers, root])
  let booted: Booted | null = null
  const end = async () => {
    await booted?.end()
    execFileSync('umount', ['--lazy', root])
    rmSync(work, { recursive: true, force: true })
  }
  try {
    booted = await boot(root, options)
  } catch (error) {
    await end()
    throw error
  }
  const inside = () => {
    if (booted === null) throw new Error('the container does not run')
    return booted
  }
  const run = (...command: readonly string[]) => enter(inside().leader, command)
  return {
    root,
    get leaderPid() {
      return inside().leader
    },
    run,
    must(...command) {
      const ran = run(...command)
      if (ran.code !== 0)
        throw new Error(`${command.join(' ')} ended with ${ran.code}:\n${ran.stdout}${ran.stderr}`)
      return ran.stdout
    },
    unitPids: (unit) => pidsOf(inside().leader, unit),
    async reboot() {
      await inside().end()
      booted = await boot(root, options)
    },
    [Symbol.asyncDispose]: end,
  }
}

interface Booted {
  /** The container's first process, as this machine numbers it. */
  readonly leader: number
  end(): Promise<void>
}

async function boot(root: string, options: BootOptions): Promise<Booted> {
  const [program = '', ...words] = [...(options.launcher ?? []), 'systemd-nspawn']
  const nspawn = spawn(
    program,
    [
      ...words,
      ...['--quiet', '--boot', `--directory=${root}`, '--private-network', '--register=no', '--keep-unit'],
      ...[`--machine=cordon-${process.pid}-${Math.random().toString(36).slice(2, 8)}`, '--link-journal=no'],
      ...['--console=pipe', '--kill-signal=SIGRTMIN+3'],
      ...[`--capability=${options.capabilities ?? CAPABILITIES}`, `--system-call-filter=${SYSTEM_CALLS}`],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  let said = ''
  for (const stream of [nspawn.stdout, nspawn.stderr]) {
    stream.on('data', (chunk) => {
      said = (said + chunk).slice(-4_000)
    })
  }
  let leader = 0
  const end = async () => {
    if (nspawn.exitCode !== null || nspawn.signalCode !== null) return
    const gone = new Promise((resolve) => nspawn.once('exit', resolve))
    // An orderly power-off first; what hangs is ended with its namespace.
    nspawn.kill('SIGTERM')
    const timer = setTimeout(
      () => (leader === 0 ? nspawn.kill('SIGKILL') : process.kill(leader, 'SIGKILL')),
      60_000,
    )
    await gone
    clearTimeout(timer)
  }
  try {
    await waitUntil(
      () => {
        // nspawn starts a child that starts the host's first process in its place: asked for anew each time.
        leader = firstChild(nspawn)
        const state = enter(leader, ['systemctl', 'is-system-running']).stdout.trim()
        if (state !== 'running' && state !== 'degraded')
          throw new Error(`the container is ${state || 'not there'}: ${said}`)
      },
      { timeout: BOOT_MS, interval: 250 },
    )
  } catch (error) {
    await end()
    throw error
  }
  return { leader, end }
}

function firstChild(parent: ChildProcess): number {
  const { pid, exitCode } = parent
  if (exitCode !== null) throw new Error(`it ended with ${exitCode}`)
  const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ')
  if (!child) throw new Error('it has no child yet')
  return Number(child)
}

function enter(leader: number, command: readonly string[]): Ran {
  const namespaces = ['-m', '-u', '-i', '-n', '-p', '-C', '-r', '-w']
  const ran = spawnSync('nsenter', ['-t', String(leader), ...namespaces, '--', ...command], {
    encoding: 'utf8',
    timeout: COMMAND_MS,
    maxBuffer: 64 * 1024 ** 2,
    env: {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      LANG: 'C.UTF-8',
      HOME: '/root',
      DEBIAN_FRONTEND: 'noninteractive',
    },
  })
  return { code: ran.status ?? 1, stdout: ran.stdout ?? '', stderr: ran.stderr ?? String(ran.error ?? '') }
}

/** By systemd's own group of the unit, whose file numbers processes as its reader sees them. */
function pidsOf(leader: number, unit: string): number[] {
  const group = enter(leader, ['systemctl', 'show', '--property=ControlGroup', '--value', unit]).stdout.trim()
  if (group === '') return []
  const own = readFileSync(`/proc/${leader}/cgroup`, 'utf8').match(/^\d+:name=systemd:(.*)$/m)
  const [hierarchy, scope] =
    own === null
      ? ['/sys/fs/cgroup', readFileSync(`/proc/${leader}/cgroup`, 'utf8').match(/^0::(.*)$/m)?.[1] ?? '']
      : ['/sys/fs/cgroup/systemd', own[1] ?? '']
  const root = scope.replace(/\/init\.scope$/, '')
  const file = join(hierarchy, root, group, 'cgroup.procs')
  return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n').filter(Boolean).map(Number) : []
}
