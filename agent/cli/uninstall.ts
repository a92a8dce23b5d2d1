/**
 * `cordon-agent uninstall`: takes the service away that `install` made. An isolated host keeps its agent, because
 * nobody else could release it. Without purge identity, buffer and quarantine stay for the next installation.
 */
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import {
  isInstalledUnit,
  type Place,
  packageUnit,
  type Step,
  UNIT_FOLDER,
  UNIT_NAMES,
  wantedLink,
} from './install.ts'
import { AGENT_CONFIG, AGENT_PROGRAM, AGENT_STATE_FOLDER, AGENT_UNIT } from './install-units.ts'

interface UninstallOptions extends Place {
  readonly userId: number
  /** Why the host must keep its agent; null: it may go. */
  readonly isolation: string | null
  /** What is destroyed by `purge` is told first; it happens when this resolves true. */
  readonly purge: ((destroyed: readonly string[]) => Promise<boolean>) | null
  /** Removes what a killed agent left; told what it did. */
  readonly clean: () => Promise<readonly string[]>
}

export async function uninstall(options: UninstallOptions): Promise<Step> {
  const { root, say, systemctl } = options
  const refusal = refuse(options)
  if (refusal !== null) return { ok: false, reason: refusal }
  if (options.purge !== null && !(await options.purge(whatPurgeDestroys(root)))) {
    return { ok: false, reason: 'nothing was changed; --yes agrees without being asked' }
  }
  const runs = root === '/' && existsSync('/run/systemd/system')
  if (runs) {
    // Not waiting for a word: stopping is what makes the kernel forget the agent.
    const stopped = systemctl('stop', AGENT_UNIT)
    if (!stopped.ok && systemctl('is-active', AGENT_UNIT).ok) return stopped
  }
  for (const name of UNIT_NAMES) {
    rmSync(wantedLink(root, name), { force: true })
    rmSync(join(root, UNIT_FOLDER, name), { force: true })
    say(`removed ${UNIT_FOLDER}/${name}`)
  }
  if (runs) {
    for (const words of [['daemon-reload'], ['reset-failed', ...UNIT_NAMES]]) systemctl(...words)
    for (const line of await options.clean()) say(line)
  }
  rmSync(join(root, AGENT_PROGRAM), { force: true })
  say(`removed ${AGENT_PROGRAM}`)
  if (options.purge !== null) {
    for (const folder of [AGENT_STATE_FOLDER, dirname(AGENT_CONFIG)]) {
      rmSync(join(root, folder), { recursive: true, force: true })
      say(`removed ${folder}`)
    }
  } else {
    say(`kept ${AGENT_STATE_FOLDER} and ${AGENT_CONFIG}: --purge destroys them`)
  }
  return { ok: true }
}

function refuse({ root, userId, isolation }: UninstallOptions): string | null {
  if (root === '/' && userId !== 0) return 'removing a service needs root: sudo cordon-agent uninstall'
  const owned = packageUnit(root)
  if (owned !== null) {
    return `${owned} comes from a package: remove that instead (apt-get remove cordon-agent, or dnf remove cordon-agent)`
  }
  if (isolation !== null) return isolation
  const written = UNIT_NAMES.some((name) => isInstalledUnit(join(root, UNIT_FOLDER, name)))
  // A second call after one that was interrupted finishes what is left.
  if (written || existsSync(join(root, AGENT_PROGRAM)) || existsSync(join(root, AGENT_STATE_FOLDER)))
    return null
  return `no agent is installed in ${root}`
}

/** In words for the person who is asked. */
function whatPurgeDestroys(root: string): string[] {
  const folder = join(root, AGENT_STATE_FOLDER)
  const held = countFiles(join(folder, 'quarantine'))
  const facts = [
    existsSync(join(folder, 'identity.json')) && 'the identity of this host: it must be enrolled anew',
    existsSync(join(folder, 'buffer.db')) &&
      'the buffer: events that the controller does not have yet are lost',
    existsSync(join(folder, 'journal.db')) && 'the journal of what was done here',
    held > 0 && `${held} files in quarantine, which cannot be restored then`,
    existsSync(join(root, AGENT_CONFIG)) && `the settings in ${AGENT_CONFIG}`,
  ]
  return facts.filter((fact) => fact !== false)
}

function countFiles(folder: string): number {
  if (!existsSync(folder)) return 0
  return readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
    .length
}
