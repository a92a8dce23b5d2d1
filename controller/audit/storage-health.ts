/**
 * Whether what has to be written can be: the events and the state. While a disk is full agents keep what they
 * have and this controller answers; a person has to hear of it, in the audit log as soon as that takes anything.
 */
import type { Logger } from '../../shared/node/logger.ts'
import type { AuditLog } from '../api/services.ts'
import { whenItCan } from '../state/database-failure.ts'

export type StoragePart = 'events' | 'state'

export interface StorageHealth {
  /** An attempt to write ended so: `cause` null when it worked. Cheap, for it is called for every batch. */
  note(part: StoragePart, cause: unknown): void
  /** In words, for a person; empty when everything can be written. */
  problems(): readonly string[]
}

interface Trouble {
  readonly sinceMs: number
  readonly reason: string
  told: boolean
}

export function createStorageHealth(dependencies: {
  readonly audit: Pick<AuditLog, 'record'>
  readonly log: Pick<Logger, 'error' | 'info'>
  readonly nowMs: () => number
}): StorageHealth {
  const { audit, log, nowMs } = dependencies
  const troubles = new Map<StoragePart, Trouble>()
  const record = (what: string, part: StoragePart, words: string) =>
    whenItCan(() => audit.record('controller', `alert.${what}`, part, words))

  const failed = (part: StoragePart, cause: unknown) => {
    const trouble = troubles.get(part) ?? { sinceMs: nowMs(), reason: wordsOf(cause), told: false }
    if (!troubles.has(part))
      log.error({ part, reason: trouble.reason }, 'nothing can be stored: agents keep it')
    troubles.set(part, trouble)
    trouble.told ||= record('storeFailed', part, `${trouble.reason}; agents keep what is not stored`)
  }
  const worked = (part: StoragePart, trouble: Trouble) => {
    const words = `can be written again; it could not since ${new Date(trouble.sinceMs).toISOString()}: ${trouble.reason}`
    if (!record('storeWorks', part, words)) return
    troubles.delete(part)
    log.info({ part }, words)
  }

  return {
    note(part, cause) {
      const trouble = troubles.get(part)
      if (cause !== null) failed(part, cause)
      else if (trouble) worked(part, trouble)
    },
    problems: () => [...troubles].map(([part, { reason }]) => `${part}: ${reason}`),
  }
}

function wordsOf(cause: unknown): string {
  const text = cause instanceof Error ? cause.message : String(cause)
  return /SQLITE_FULL|database or disk is full|ENOSPC|no space/i.test(text)
    ? 'the disk is full'
    : text.slice(0, 256)
}
