/**
 * One root of files (the host's own, or a container's): which of its paths are configuration, what each held when
 * it was looked at last, and what a change of it means.
 */
import { realpathSync } from 'node:fs'
import { createElapsed } from '../elapsed.ts'
import { bytesOf, type ExactPath, linkTarget, readable, toExact } from '../exact-path.ts'
import type { ConfigurationChange } from '../records.ts'
import type { ListFolder, ReadFile, Standing } from '../safe-read.ts'
import { type AccountsContext, accountChanges } from './account-changes.ts'
import { ACCOUNT_BYTES_MAX, type AccountFile, toAccountsState } from './account-files.ts'
import { KEY_BYTES_MAX, keyChanges, keyFilePatterns, toKeysState } from './authorized-keys.ts'
import { beforeAndAfter } from './before-and-after.ts'
import type { Home } from './home-places.ts'
import { createPlaces } from './places.ts'
import type { Room } from './room.ts'
import { type FileState, TEXT_BYTES_MAX, type TextState, toTextState, weightOf } from './state.ts'
import { unitChanges } from './unit-changes.ts'
import type { Topic } from './watched-places.ts'

export interface RootOptions {
  /** Prefix of every path of this root; '' is the host's own. */
  readonly root: ExactPath
  readonly read: ReadFile
  readonly list: ListFolder
  readonly clock: () => number
  /** Shared by all roots: whether there is room for a file more, and for this much more text. */
  readonly room: Room
  /** Folders that are never looked into, such as network file systems: one that does not answer blocks the agent. */
  readonly excludedFolders: readonly ExactPath[]
}

export interface WatchedFile {
  readonly path: ExactPath
  readonly topic: Topic
}

export interface Look {
  readonly before: FileState | null
  readonly after: FileState | null
}

export interface ConfigurationRoot {
  readonly prefix: ExactPath
  /** Cheap: asked for every file event. False: neither the path nor what is below it is configuration. */
  mayMatter(inside: ExactPath): boolean
  topicOf(inside: ExactPath): Topic | null
  /** Watched files that are, or were, at or below a folder: asked when a folder was renamed. */
  filesBelow(folder: ExactPath): WatchedFile[]
  /** Every watched file that there is, or was. Null: nothing was found for a while; there are thousands of homes. */
  files(): Generator<WatchedFile | null>
  /** Reads the file again. */
  look(file: WatchedFile): Look
  /** Keeps what was seen, and says what it means. */
  apply(file: WatchedFile, look: Look): ConfigurationChange[]
  /** Keeps what was seen without a word; also what was kept in an earlier life. */
  keep(path: ExactPath, state: FileState | null): void
  kept(path: ExactPath): FileState | undefined
  /** Reads again where homes and keys are. Gives homes that are new since. */
  refreshPlaces(): Home[]
  filesOfHome(home: Home): WatchedFile[]
  /** Files that links led to since it was asked last. */
  takeDiscovered(): WatchedFile[]
  /** Whether watched files can lie at or below a folder. */
  concerns(folder: ExactPath): boolean
  /** Lets go of what is kept of homes that are gone; gives the paths. */
  dropForgotten(): ExactPath[]
  release(): void
}

const FRESH_MS = 10_000
const FRESH_MAX = 4_096
const SSHD_CONFIGURATION_FILES_MAX = 64

export function createConfigurationRoot(options: RootOptions): ConfigurationRoot {
  const { root, read, list, room } = options
  const kept = new Map<ExactPath, FileState>()
  const fresh = createFreshNames(options.clock)
  const places = createPlaces({ list: (folder, entriesMax) => list(root, folder, entriesMax) })
  const accountsOf = (file: AccountFile) => {
    const state = kept.get(`/etc/${file}`)
    return state?.kind === 'accounts' ? state.entries : new Map<string, readonly string[]>()
  }
  let discovered: WatchedFile[] = []
  const context: AccountsContext = { entriesOf: accountsOf, fresh }
  const isExcluded = (path: ExactPath) =>
    options.excludedFolders.some((folder) => path === folder || path.startsWith(`${folder}/`))

  function keep(path: ExactPath, state: FileState | null): void {
    const old = kept.get(path)
    if (old !== undefined) room.give(1, weightOf(old))
    if (state === null) {
      kept.delete(path)
    } else if (room.take(1, weightOf(state))) {
      kept.set(path, state)
    } else {
      // Without its text it is still known whether it changed.
      const slim: FileState = state.kind === 'text' ? { ...state, text: null } : state
      if (room.take(1, weightOf(slim))) kept.set(path, slim)
      else kept.delete(path)
    }
  }

  function readState({ path, topic }: WatchedFile): FileState | null {
    if (isExcluded(path)) return kept.get(path) ?? null
    switch (topic.kind) {
      case 'accounts': {
        const standing = read(root, path, ACCOUNT_BYTES_MAX)
        // What cannot be read at the moment says nothing of the accounts.
        return standing.kind === 'other' ? (kept.get(path) ?? null) : toAccountsState(standing)
      }
      case 'keys':
        return readKeys(path, topic.user)
      case 'task':
        return toTextState(
          read(root, path, TEXT_BYTES_MAX),
          true,
          topic.task === 'at' ? jobWithoutEnvironment : undefined,
        )
      case 'unit':
        return toTextState(read(root, path, TEXT_BYTES_MAX), true)
      case 'persistence':
        return toTextState(read(root, path, TEXT_BYTES_MAX), isOpenKind(topic.persistence))
    }
  }

  /** sshd follows links, so what they lead to is watched in their place. */
  function readKeys(path: ExactPath, user: string | null): FileState | null {
    const standing = read(root, path, KEY_BYTES_MAX)
    if (standing.kind === 'other') return kept.get(path) ?? null
    const real = whereItLeads(path, standing)
    if (real !== path && !isExcluded(real) && places.topicOf(real)?.kind !== 'keys') {
      places.addKeyFile(real, user)
      discovered.push({ path: real, topic: { kind: 'keys', user } })
    }
    return toKeysState(standing)
  }

  function whereItLeads(path: ExactPath, standing: Standing): ExactPath {
    if (standing.kind === 'file') return path
    // Folders on the way can be links, too, which on the host's own root the kernel resolves.
    if (root === '') return realPath(path)
    return standing.kind === 'link' ? linkTarget(path, standing.target) : path
  }

  /** What useradd(8) copies into a new home is what the host's owner put there for everybody. */
  function isFromSkeleton(path: ExactPath, after: TextState): boolean {
    const home = places.homeOf(path)
    if (home === null) return false
    const skeleton = toTextState(read(root, `/etc/skel${path.slice(home.length)}`, TEXT_BYTES_MAX), true)
    return skeleton?.digest === after.digest
  }

  function changesOf({ path, topic }: WatchedFile, { before, after }: Look): ConfigurationChange[] {
    const told = readable(root + path).slice(0, 4_096)
    if (topic.kind === 'accounts') {
      return accountChanges(topic.file, told, ofKind('accounts', before), ofKind('accounts', after), context)
    }
    if (topic.kind === 'keys') {
      return keyChanges(topic.user, told, ofKind('keys', before), ofKind('keys', after))
    }
    const old = ofKind('text', before)
    const current = ofKind('text', after)
    if (old?.digest === current?.digest) return []
    if (topic.kind === 'unit') {
      return unitChanges(topic.place, told, old, current, (link) => places.isUnitPath(path, toExact(link)))
    }
    if (old === null && current !== null && isFromSkeleton(path, current)) return []
    const change = {
      'event.type': old === null ? 'creation' : current === null ? 'deletion' : 'change',
      'file.path': told,
      ...beforeAndAfter(old, current),
    } as const
    return topic.kind === 'task'
      ? [{ 'event.action': 'scheduled-task-changed', 'cordon.persistence.kind': topic.task, ...change }]
      : [{ 'event.action': 'persistence-changed', 'cordon.persistence.kind': topic.persistence, ...change }]
  }

  function sshdConfigurations(): string[] {
    const names = list(root, '/etc/ssh/sshd_config.d', SSHD_CONFIGURATION_FILES_MAX)
    const paths = ['/etc/ssh/sshd_config', ...names.map(({ name }) => `/etc/ssh/sshd_config.d/${name}`)]
    return paths.flatMap((path) => {
      const standing = read(root, path, TEXT_BYTES_MAX)
      return standing.kind === 'file' ? [standing.content.toString('utf8')] : []
    })
  }

  return {
    prefix: root,
    mayMatter: places.mayMatter,
    topicOf: places.topicOf,
    concerns: places.concerns,
    takeDiscovered() {
      const files = discovered
      discovered = []
      return files
    },
    look: (file) => ({ before: kept.get(file.path) ?? null, after: readState(file) }),
    apply(file, look) {
      const changes = changesOf(file, look)
      keep(file.path, look.after)
      return changes
    },
    keep,
    kept: (path) => kept.get(path),
    *files() {
      const seen = new Set<ExactPath>()
      for (const file of places.files()) {
        if (file !== null && seen.has(file.path)) continue
        if (file !== null) seen.add(file.path)
        yield file
      }
      for (const path of [...kept.keys()]) {
        const topic = seen.has(path) ? null : places.topicOf(path)
        if (topic !== null) yield { path, topic }
      }
    },
    filesBelow(folder) {
      const files = new Map(places.filesBelow(folder).map((file) => [file.path, file]))
      for (const path of kept.keys()) {
        const topic = path.startsWith(`${folder}/`) ? places.topicOf(path) : null
        if (topic !== null) files.set(path, { path, topic })
      }
      return [...files.values()]
    },
    refreshPlaces() {
      const homes = [...accountsOf('passwd').values()].flatMap(
        ([name = '', , id = '', , , home = '']): Home[] => {
          const path = toExact(home)
          if (!path.startsWith('/') || isExcluded(path)) return []
          const user = { name, id }
          // Records tell where a home really is.
          const real = root === '' ? realPath(path) : path
          return real === path
            ? [{ path, user }]
            : [
                { path, user },
                { path: real, user },
              ]
        },
      )
      return places.setHomes(homes, keyFilePatterns(sshdConfigurations()))
    },
    filesOfHome: (home) => places.filesOfHome(home),
    dropForgotten() {
      const paths = [...kept.keys()].filter((path) => places.topicOf(path) === null)
      for (const path of paths) keep(path, null)
      return paths
    },
    release() {
      for (const state of kept.values()) room.give(1, weightOf(state))
      kept.clear()
    },
  }
}

function ofKind<Kind extends FileState['kind']>(
  kind: Kind,
  state: FileState | null,
): Extract<FileState, { kind: Kind }> | null {
  return state?.kind === kind ? (state as Extract<FileState, { kind: Kind }>) : null
}

/** Kinds that hold no secrets, so that their text is told even where not everybody may read it. */
function isOpenKind(kind: Extract<Topic, { kind: 'persistence' }>['persistence']): boolean {
  return kind === 'sudoers' || kind === 'ssh-configuration' || kind === 'preload'
}

/** at(1) writes the user's environment, which can hold secrets, before the folder and the commands. */
function jobWithoutEnvironment(text: string): string {
  const start = text.search(/^cd .* \|\| \{$/m)
  return start === -1 ? '(the commands of the job were not found in it)' : text.slice(start)
}

function realPath(path: ExactPath): ExactPath {
  try {
    return toExact(realpathSync(bytesOf(path).toString('utf8')))
  } catch {
    return path
  }
}

function createFreshNames(clock: () => number): AccountsContext['fresh'] {
  const elapsed = createElapsed(clock)
  const untilMs = new Map<string, number>()
  return {
    has: (name) => (untilMs.get(name) ?? 0) > elapsed(),
    add(name) {
      if (untilMs.size >= FRESH_MAX) untilMs.clear()
      untilMs.set(name, elapsed() + FRESH_MS)
    },
  }
}
