/** Something about a backup that a person can mend; its message says how. */
export class BackupError extends Error {
  override readonly name = 'BackupError'
}
