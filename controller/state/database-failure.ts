/** Faults of the machine (full disk, locked or unreadable file), not of one row that breaks a rule. */
export function isDatabaseFailure(error: unknown): boolean {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return false
  return error.code.startsWith('SQLITE_') && !error.code.startsWith('SQLITE_CONSTRAINT')
}

/** Does what may wait: false when the database takes nothing at the moment. */
export function whenItCan(work: () => void): boolean {
  try {
    work()
    return true
  } catch (error) {
    if (!isDatabaseFailure(error)) throw error
    return false
  }
}
