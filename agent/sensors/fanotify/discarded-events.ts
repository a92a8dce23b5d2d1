/**
 * What the addon discarded because too many events waited (`struct discarded_events` in
 * `agent/native/addon/queue_relief.h`): exact counts, by process, of what would have been told.
 */
import type { FileRecord } from '../records.ts'

export type FileCounts = Record<FileRecord['action'], number>

/** The order in which the addon packs them, after the pid. */
const actions = ['creation', 'modification', 'deletion', 'rename'] as const
const entryBytes = 20
/** Entries of one call: 256 processes, and one for all that had no room. */
export const discardedBytesMax = 257 * entryBytes

export function noFileCounts(): FileCounts {
  return { creation: 0, modification: 0, deletion: 0, rename: 0 }
}

/** Adds what was discarded to `counts`, without the processes that are left out anyway. */
export function addDiscarded(
  buffer: Buffer,
  length: number,
  isExcluded: (pid: number) => boolean,
  counts: FileCounts,
): void {
  const end = Math.min(length, buffer.length)
  for (let offset = 0; offset + entryBytes <= end; offset += entryBytes) {
    if (isExcluded(buffer.readInt32LE(offset))) continue
    for (const [index, action] of actions.entries()) {
      counts[action] += buffer.readUInt32LE(offset + 4 + 4 * index)
    }
  }
}

const eventActions = {
  creation: 'file-created',
  modification: 'file-modified',
  deletion: 'file-deleted',
  rename: 'file-renamed',
} as const

/** The counts by the action of the event, and their sum; null when there is nothing to tell. */
export function countsByAction(
  counts: FileCounts,
): { readonly count: number; readonly actions: Readonly<Record<string, number>> } | null {
  const told = actions.filter((action) => counts[action] > 0)
  if (told.length === 0) return null
  return {
    count: told.reduce((sum, action) => sum + counts[action], 0),
    actions: Object.fromEntries(told.map((action) => [eventActions[action], counts[action]])),
  }
}
