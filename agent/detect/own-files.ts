/**
 * Tells the agent's own state from everything else, so that detection does not read what it writes. A file with
 * one link is known by its real path; one with several is known by device and inode, whatever name it came by.
 */
import { type BigIntStats, lstatSync, readdirSync, realpathSync } from 'node:fs'
import { join } from 'node:path'

export interface OwnFiles {
  /** `realPath`: without symbolic links; null when it cannot be told. */
  has(realPath: string | null, stats: BigIntStats): boolean
}

const FILES_MAX = 10_000
const DEPTH_MAX = 8
const REFRESH_INTERVAL_MS = 5_000

/** Folders that do not exist are left out. */
export function createOwnFiles(folders: readonly string[], clock: () => number): OwnFiles {
  const roots = folders.flatMap((folder) => {
    try {
      return [realpathSync(folder)]
    } catch {
      return []
    }
  })
  let inodes: ReadonlySet<string> = new Set()
  let refreshedMs = Number.NEGATIVE_INFINITY

  function isBelow(path: string): boolean {
    return roots.some((root) => path === root || path.startsWith(`${root}/`))
  }

  function refresh(): void {
    const found = new Set<string>()
    for (const root of roots) collectInodes(root, 0, found)
    inodes = found
    refreshedMs = clock()
  }

  return {
    has(realPath, stats) {
      if (roots.length === 0) return false
      if (realPath !== null && isBelow(realPath)) return true
      if (stats.nlink === 1n && realPath !== null) return false
      if (clock() - refreshedMs >= REFRESH_INTERVAL_MS) refresh()
      return inodes.has(`${stats.dev}:${stats.ino}`)
    },
  }
}

function collectInodes(folder: string, depth: number, found: Set<string>): void {
  if (depth > DEPTH_MAX) return
  try {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (found.size >= FILES_MAX) return
      const path = join(folder, entry.name)
      if (entry.isDirectory()) {
        collectInodes(path, depth + 1, found)
      } else if (entry.isFile()) {
        const stats = lstatSync(path, { bigint: true })
        found.add(`${stats.dev}:${stats.ino}`)
      }
    }
  } catch {
    // A folder or file that went away meanwhile is nobody's.
  }
}
