/** Whether this process may watch whole file systems, and if not, what is missing. */
import { lackOf, missingCapabilities } from '../capabilities.ts'

export type FanotifyProbe = { readonly ok: true } | { readonly ok: false; readonly reason: string }

/**
 * Marks on file systems need CAP_SYS_ADMIN (fanotify_init(2)). Events name their folder by a handle, and without
 * CAP_DAC_READ_SEARCH (open_by_handle_at(2)) no handle is opened: all would be seen and none could be told.
 */
export function probeFanotify(statusPath?: string): FanotifyProbe {
  const missing = missingCapabilities(['CAP_SYS_ADMIN', 'CAP_DAC_READ_SEARCH'], statusPath)
  return missing.length === 0 ? { ok: true } : { ok: false, reason: lackOf(missing) }
}
