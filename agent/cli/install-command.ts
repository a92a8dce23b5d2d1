/** `install`, `uninstall` and `clean-kernel` on this very host: their steps with the real system behind them. */
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { createInterface } from 'node:readline/promises'
import { packed } from '../../shared/node/assets.ts'
import { holdStateFolder } from '../../shared/node/state-lock.ts'
import { recordKeepsRules } from '../actions/isolation/record.ts'
import { createProgramRunner } from '../platform/linux/firewall-programs.ts'
import { systemctl } from '../platform/linux/systemd.ts'
import { cleanKernel } from './clean-kernel.ts'
import { enrolHost } from './enrol-host.ts'
import { install, type Step } from './install.ts'
import { uninstall } from './uninstall.ts'

type Say = (line: string) => void

/** Exit status of `uninstall --check` on an isolated host, which scripts of packages tell from every other. */
const ISOLATED_STATUS = 3

interface InstallWords {
  readonly root: string
  /** URL and token; none: enrolled already, or later. */
  readonly enroll?: readonly string[]
}

export async function installHere(stateFolder: string, words: InstallWords, say: Say): Promise<Step> {
  const [url, token, ...rest] = words.enroll ?? []
  if (words.enroll !== undefined && (url === undefined || token === undefined || rest.length > 0)) {
    return { ok: false, reason: '--enroll takes an address and a token: --enroll https://HOST:7802 TOKEN' }
  }
  return await install({
    root: words.root,
    program: packed === null ? null : process.execPath,
    userId: process.geteuid?.() ?? -1,
    systemctl,
    say,
    async enrol() {
      if (url === undefined || token === undefined) return { ok: true }
      const enrolled = await enrolHost(stateFolder, url, token)
      if (enrolled.ok) say(enrolled.said)
      return enrolled
    },
    enrolling: url !== undefined,
  })
}

interface UninstallWords {
  readonly root: string
  readonly purge?: boolean
  readonly yes?: boolean
}

export async function uninstallHere(stateFolder: string, words: UninstallWords, say: Say): Promise<Step> {
  return await uninstall({
    root: words.root,
    userId: process.geteuid?.() ?? -1,
    systemctl,
    say,
    isolation: words.root === '/' ? whyItMustStay(stateFolder) : null,
    purge: words.purge ? (destroyed) => agree(destroyed, words.yes ?? false, say) : null,
    clean: () => cleanHere(stateFolder),
  })
}

/** Exit status for the scripts of packages; changes nothing. */
export function checkMayGo(stateFolder: string, complain: Say): number {
  const reason = whyItMustStay(stateFolder)
  if (reason === null) return 0
  complain(reason)
  return ISOLATED_STATUS
}

/** What an agent of this host may have left; nothing while one runs. Returns a line per thing that was done. */
export async function cleanHere(stateFolder: string): Promise<readonly string[]> {
  if (!existsSync(stateFolder)) return await clean(stateFolder)
  using held = holdStateFolder(stateFolder)
  return held === null ? ['an agent runs: there is nothing to clean'] : await clean(stateFolder)
}

/** The same for the agent that holds its folder and starts; rules it brings to what its record says by itself. */
export async function cleanAtStart(stateFolder: string): Promise<readonly string[]> {
  return await clean(stateFolder, true)
}

async function clean(stateFolder: string, keepRules = false): Promise<readonly string[]> {
  const { removed, problems } = await cleanKernel({
    keepRules: keepRules || process.geteuid?.() !== 0 || recordKeepsRules(stateFolder),
    runProgram: createProgramRunner(),
    stateFolder,
    temporaryFolder: tmpdir(),
    clock: Date.now,
  })
  return [...removed.map((what) => `removed ${what}`), ...problems]
}

function whyItMustStay(stateFolder: string): string | null {
  if (!recordKeepsRules(stateFolder)) return null
  return [
    'this host is isolated, and without its agent nobody could release it; release it first:',
    '  from the controller: cordon host release HOST',
    '  or here, with its break-glass code (cordon host break-glass HOST): cordon-agent release --code -',
  ].join('\n')
}

async function agree(destroyed: readonly string[], isAgreed: boolean, say: Say): Promise<boolean> {
  for (const what of destroyed) say(`destroys ${what}`)
  if (isAgreed) return true
  if (!process.stdin.isTTY) return false
  const terminal = createInterface({ input: process.stdin, output: process.stdout })
  try {
    return (await terminal.question('Destroy this for good? Type yes: ')).trim() === 'yes'
  } finally {
    terminal.close()
  }
}
