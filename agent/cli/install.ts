/**
 * `cordon-agent install`: this program as a service of a host that has no package of it. Done again it upgrades:
 * the program changes in one step, identity, buffer and settings stay.
 */
import {
  closeSync,
  copyFileSync,
  existsSync,
  fchmodSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { writeFileDurably } from '../../shared/node/durable-file.ts'
import type { SystemctlResult } from '../platform/linux/systemd.ts'
import {
  AGENT_CONFIG,
  AGENT_PROGRAM,
  AGENT_STATE_FOLDER,
  AGENT_UNIT,
  AGENT_UNITS,
  INSTALLED_MARK,
  ISOLATION_UNIT,
  WANTED_BY,
} from './install-units.ts'

export type Step = { readonly ok: true } | { readonly ok: false; readonly reason: string }

export interface Place {
  /** `/`, or the folder of an image, in which nothing is started. */
  readonly root: string
  readonly systemctl: (...args: readonly string[]) => SystemctlResult
  readonly say: (line: string) => void
}

interface InstallOptions extends Place {
  /** The file of the program that runs; null: it runs from sources, which cannot be installed. */
  readonly program: string | null
  readonly userId: number
  /** Enrols this host before the service starts, when that was asked for. */
  readonly enrol: () => Promise<Step>
  readonly enrolling: boolean
}

export const UNIT_FOLDER = '/etc/systemd/system'
/** Where packages put units; either may be a link to the other. */
const PACKAGE_UNIT_FOLDERS = ['/usr/lib/systemd/system', '/lib/systemd/system']
export const UNIT_NAMES = [AGENT_UNIT, ISOLATION_UNIT] as const

export async function install(options: InstallOptions): Promise<Step> {
  const { root, say } = options
  const refusal = refuse(options)
  if (refusal !== null) return { ok: false, reason: refusal }
  putProgram(options.program ?? '', join(root, AGENT_PROGRAM))
  say(`${AGENT_PROGRAM}`)
  mkdirSync(join(root, AGENT_STATE_FOLDER), { recursive: true, mode: 0o700 })
  const config = join(root, AGENT_CONFIG)
  mkdirSync(dirname(config), { recursive: true, mode: 0o755 })
  if (!existsSync(config)) writeFileDurably(config, '{}\n', 0o644)
  say(AGENT_CONFIG)
  for (const name of UNIT_NAMES) {
    putUnit(root, name)
    say(`${UNIT_FOLDER}/${name}`)
  }
  const enrolled = await options.enrol()
  if (!enrolled.ok) return { ok: false, reason: `installed, but not enrolled: ${enrolled.reason}` }
  return root === '/' ? startService(options) : { ok: true }
}

/** Why nothing is done; null: all is well. */
function refuse({ root, program, userId, enrolling }: InstallOptions): string | null {
  if (program === null) {
    return 'this agent runs from sources; install the packed program: npm run package, then dist/cordon-agent install'
  }
  if (!existsSync(root)) return `--root ${root} is not there`
  const owned = packageUnit(root)
  if (owned !== null) return `${owned} comes from a package: upgrade that instead (docs/install.md)`
  if (root !== '/') {
    // Two hosts with one identity are clones, which the controller holds.
    return enrolling ? '--root prepares an image, and an identity belongs to one host: enrol there' : null
  }
  if (userId !== 0) return 'installing a service needs root: sudo cordon-agent install'
  if (!existsSync('/run/systemd/system')) {
    return 'systemd does not run here; start `cordon-agent run` from what starts services on this host'
  }
  return null
}

/** The unit that a package brought; null: there is none. */
export function packageUnit(root: string): string | null {
  return (
    PACKAGE_UNIT_FOLDERS.map((folder) => join(root, folder, AGENT_UNIT)).find((path) => existsSync(path)) ??
    null
  )
}

/** Old or new at every moment, never none: a power cut may come between any two of these. */
function putProgram(from: string, to: string): void {
  if (existsSync(to) && sameFile(from, to)) return
  mkdirSync(dirname(to), { recursive: true, mode: 0o755 })
  const temporary = `${to}.${process.pid}.new`
  try {
    copyFileSync(from, temporary)
    const descriptor = openSync(temporary, 'r+')
    // The copy has the mode of where it came from: what root runs is for root alone to write.
    fchmodSync(descriptor, 0o755)
    fsyncSync(descriptor)
    closeSync(descriptor)
    renameSync(temporary, to)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw error
  }
}

function sameFile(one: string, other: string): boolean {
  const [a, b] = [lstatSync(one), lstatSync(other)]
  return a.dev === b.dev && a.ino === b.ino
}

/** Written and enabled: the link is what `systemctl enable` would make, and images have no systemctl to ask. */
function putUnit(root: string, name: keyof typeof WANTED_BY): void {
  const folder = join(root, UNIT_FOLDER)
  mkdirSync(folder, { recursive: true, mode: 0o755 })
  writeFileDurably(join(folder, name), `${INSTALLED_MARK}\n${AGENT_UNITS[name]}`, 0o644)
  const link = wantedLink(root, name)
  mkdirSync(dirname(link), { recursive: true, mode: 0o755 })
  rmSync(link, { force: true })
  symlinkSync(relative(dirname(link), join(folder, name)), link)
}

export function wantedLink(root: string, name: keyof typeof WANTED_BY): string {
  return join(root, UNIT_FOLDER, `${WANTED_BY[name]}.wants`, name)
}

function startService({ systemctl, say }: InstallOptions): Step {
  for (const words of [['daemon-reload'], ['restart', AGENT_UNIT]]) {
    const done = systemctl(...words)
    if (!done.ok) return done
  }
  const state = systemctl('is-active', AGENT_UNIT)
  say(
    state.ok
      ? `${AGENT_UNIT} runs`
      : `${AGENT_UNIT} waits for enrolment: cordon-agent enroll URL TOKEN, then systemctl start ${AGENT_UNIT}`,
  )
  return { ok: true }
}

/** True for a unit that `install` wrote. */
export function isInstalledUnit(path: string): boolean {
  try {
    return readFileSync(path, 'utf8').startsWith(INSTALLED_MARK)
  } catch {
    return false
  }
}
