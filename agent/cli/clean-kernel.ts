/**
 * `cordon-agent clean-kernel`: what an agent that was killed may have left, removed as often as one likes. Its
 * kernel programs, fanotify groups and scanner end with its descriptors, because it pins nothing and makes no
 * cgroup; what is left is rules of the firewall that no record keeps in force, and unfinished files.
 */
import { lstatSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { REMOVAL } from '../actions/isolation/ruleset.ts'
import type { RunProgram } from '../platform/linux/firewall-programs.ts'

interface CleaningOptions {
  /** True while the record on disk says that the host is isolated, or cannot be read: then the rules stay. */
  readonly keepRules: boolean
  readonly runProgram: RunProgram
  readonly stateFolder: string
  readonly temporaryFolder: string
  readonly clock: () => number
}

interface Cleaning {
  readonly removed: readonly string[]
  readonly problems: readonly string[]
}

/** Addons of a command that was killed while it loaded them; one that loads them now is younger. */
const ABANDONED_AFTER_MS = 60_000
const ADDON_FOLDER = /^cordon-addon-[A-Za-z0-9]{6}$/
const UNFINISHED_FILE = /\.[0-9a-f]{12}\.new$/

/** Only for a state folder that no agent holds. */
export async function cleanKernel(options: CleaningOptions): Promise<Cleaning> {
  const rules = options.keepRules ? NOTHING : await removeRules(options.runProgram)
  const files = [...abandonedFolders(options), ...unfinishedFiles(options.stateFolder)]
  for (const path of files) rmSync(path, { recursive: true, force: true })
  return { removed: [...rules.removed, ...files], problems: rules.problems }
}

const NOTHING: Cleaning = { removed: [], problems: [] }

async function removeRules(runProgram: RunProgram): Promise<Cleaning> {
  const listed = await runProgram('nft', ['list', 'tables'], '')
  // Without nft the agent made no rules.
  if (listed.kind === 'missing') return NOTHING
  if (listed.kind === 'failed') return { removed: [], problems: [`nft: ${listed.reason}`] }
  if (listed.code !== 0) return { removed: [], problems: [`nft list tables: ${listed.errors.trim()}`] }
  const left = listed.output.split('\n').filter((line) => REMOVAL.includes(`\ndelete ${line}\n`))
  if (left.length === 0) return NOTHING
  const removed = await runProgram('nft', ['-f', '-'], REMOVAL)
  if (removed.kind === 'ended' && removed.code === 0) return { removed: left, problems: [] }
  const why = removed.kind === 'ended' ? removed.errors.trim() : removed.kind
  return { removed: [], problems: [`${left.join(', ')} cannot be removed: ${why}`] }
}

function abandonedFolders({ temporaryFolder, clock }: CleaningOptions): string[] {
  return entriesOf(temporaryFolder, ADDON_FOLDER).filter((path) => {
    const facts = lstatSync(path, { throwIfNoEntry: false })
    const ours = facts?.isDirectory() === true && facts.uid === process.geteuid?.()
    return ours && clock() - facts.mtimeMs > ABANDONED_AFTER_MS
  })
}

function unfinishedFiles(stateFolder: string): string[] {
  return ['.', 'addons'].flatMap((folder) => entriesOf(join(stateFolder, folder), UNFINISHED_FILE))
}

function entriesOf(folder: string, pattern: RegExp): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => pattern.test(name))
      .map((name) => join(folder, name))
  } catch {
    // A folder that is not there holds nothing that was left.
    return []
  }
}
