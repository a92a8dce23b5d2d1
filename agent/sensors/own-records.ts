/** Which records are about the agent itself: its files and its processes. No rule of operators leaves them out. */
import type { MeasuredRecord } from './volume/record-actions.ts'

export interface OwnRecordsOptions {
  readonly ownPids: ReadonlySet<number>
  /** Absolute paths without a slash at their end. */
  readonly ownFolders: readonly string[]
}

export function createOwnRecords({ ownPids, ownFolders }: OwnRecordsOptions) {
  return (record: MeasuredRecord): boolean => {
    if (record.kind === 'process-access') return ownPids.has(record.target.pid)
    if (record.kind !== 'file') return false
    const paths = [record.path, record.previousPath].filter((path) => path !== null)
    return paths.some((path) => {
      const text = typeof path === 'string' ? path : path.toString()
      return ownFolders.some((folder) => text === folder || text.startsWith(`${folder}/`))
    })
  }
}
