/**
 * The last fallback for files: chokidar over a few watched paths. It cannot tell who wrote; the writer is
 * sought among the processes that hold the file open at that moment, and the event says that it was so found.
 */
import { type FSWatcher, watch } from 'chokidar'
import { aborted } from '../../../shared/node/loop.ts'
import type { FileRecord, Sensor } from '../records.ts'

export interface FilePollingOptions {
  readonly paths: readonly string[]
  /** Left out with everything below. */
  readonly ownFolders: readonly string[]
  readonly clock: () => number
  /** Pids that hold the file open, without the agent's own. */
  readonly findHolders: (path: string) => readonly number[]
  readonly depthMax?: number
}

const DEPTH_MAX = 6

export function createFilePollingSensor(options: FilePollingOptions): Sensor {
  return {
    name: 'chokidar',
    async run(sink, signal, attached) {
      const watcher = watch([...options.paths], {
        ignoreInitial: true,
        depth: options.depthMax ?? DEPTH_MAX,
        followSymlinks: false,
        ignorePermissionErrors: true,
        ignored: (path) =>
          options.ownFolders.some((folder) => path === folder || path.startsWith(`${folder}/`)),
      })
      const tell = (action: FileRecord['action'], path: string) => sink([toRecord(action, path, options)])
      watcher.on('add', (path) => tell('creation', path))
      watcher.on('change', (path) => tell('modification', path))
      watcher.on('unlink', (path) => tell('deletion', path))
      const failed = new Promise<never>((_, reject) => watcher.on('error', reject))
      // What is written while it looks at what is there already is taken for old.
      await Promise.race([ready(watcher).then(attached), failed, aborted(signal)])
      await Promise.race([failed, aborted(signal)]).finally(() => watcher.close())
    },
  }
}

function ready(watcher: FSWatcher): Promise<void> {
  return new Promise((resolve) => watcher.once('ready', () => resolve()))
}

function toRecord(action: FileRecord['action'], path: string, options: FilePollingOptions): FileRecord {
  const holder = action === 'deletion' ? undefined : options.findHolders(path)[0]
  return {
    kind: 'file',
    timestampMs: options.clock(),
    pid: holder ?? null,
    action,
    path,
    previousPath: null,
    // Whether the writer is done cannot be known here: the content is read at each change.
    contentComplete: action !== 'deletion',
    ...(holder === undefined ? {} : { attribution: 'open-descriptor' as const }),
  }
}
