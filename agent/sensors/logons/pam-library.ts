/**
 * Finds the libraries of PAM that the host and its containers load, and where in their files the functions begin
 * that tell of logons. Each file is given once, however many containers share it.
 */
import { linkTarget, readable } from '../exact-path.ts'
import { readSafely, type Standing } from '../safe-read.ts'
import { readSymbolOffsets } from './elf-symbols.ts'

export interface PamLibrary {
  /** A path that leads to the file from the agent's own root. */
  readonly path: string
  /** `device:inode` */
  readonly identity: string
  /** File offsets by the name of the function. */
  readonly symbols: Readonly<Record<string, number>>
}

export interface PamLibraries {
  readonly libraries: readonly PamLibrary[]
  readonly refused: readonly { readonly path: string; readonly reason: string }[]
}

export const PAM_FUNCTIONS = [
  'pam_authenticate',
  'pam_open_session',
  'pam_close_session',
  'pam_acct_mgmt',
] as const

const FOLDERS = [
  ...['x86_64-linux-gnu', 'aarch64-linux-gnu'].flatMap((triplet) => [
    `/usr/lib/${triplet}`,
    `/lib/${triplet}`,
  ]),
  ...['/usr/lib64', '/lib64', '/usr/lib', '/lib'],
]
const FILE_NAME = 'libpam.so.0'
const FILE_BYTES_MAX = 4 * 1024 * 1024
const ROOTS_MAX = 256
const REFUSED_MAX = 64
const LINKS_MAX = 4

/** `roots`: '' for the host, `/proc/PID/root` for a container. Never throws. */
export function findPamLibraries(roots: readonly string[]): PamLibraries {
  const libraries = new Map<string, PamLibrary>()
  const refused: { path: string; reason: string }[] = []
  const seen = new Set<string>()
  const refuse = (path: string, reason: string) => {
    if (refused.length < REFUSED_MAX) refused.push({ path, reason })
  }
  for (const root of roots.slice(0, ROOTS_MAX)) {
    for (const folder of FOLDERS) {
      const found = readThroughLinks(root, `${folder}/${FILE_NAME}`)
      const path = readable(root + found.inside)
      if (found.standing.kind === 'other') refuse(path, found.standing.reason)
      if (found.standing.kind !== 'file' || seen.has(found.standing.identity)) continue
      const { identity, content, sizeBytes } = found.standing
      seen.add(identity)
      if (sizeBytes > FILE_BYTES_MAX) {
        refuse(path, `it is longer than ${FILE_BYTES_MAX} bytes`)
        continue
      }
      const read = readSymbolOffsets(content, new Set(PAM_FUNCTIONS))
      if (!read.ok) refuse(path, read.reason)
      else if (read.symbols.size === 0) refuse(path, 'it defines no function of PAM')
      else libraries.set(identity, { path, identity, symbols: Object.fromEntries(read.symbols) })
    }
  }
  return { libraries: [...libraries.values()], refused }
}

/** The library is a link to the file with its version. Links are followed within the root alone. */
function readThroughLinks(
  root: string,
  path: string,
): { readonly inside: string; readonly standing: Standing } {
  let inside = path
  let standing = readSafely(root, inside, FILE_BYTES_MAX)
  for (let links = 0; standing.kind === 'link' && links < LINKS_MAX; links++) {
    inside = linkTarget(inside, standing.target)
    standing = readSafely(root, inside, FILE_BYTES_MAX)
  }
  return { inside, standing }
}
