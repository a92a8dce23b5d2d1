/**
 * The watched places in homes, and the files of keys that sshd looks for. Homes are found by the name of a file
 * first, for there can be thousands of them.
 */
import { type ExactPath, toExact } from '../exact-path.ts'
import type { FolderEntry } from '../safe-read.ts'
import { keyFileOf } from './authorized-keys.ts'
import type { WatchedFile } from './configuration-root.ts'
import { HOME_FILES, HOME_FOLDERS, type Topic, topicInFolder } from './watched-places.ts'

interface User {
  readonly name: string
  readonly id: string
}

export interface Home {
  readonly path: ExactPath
  readonly user: User
}

export interface HomePlaces {
  /** False for nearly every path, and quickly: neither it nor what is below it matters. */
  mayMatter(path: ExactPath): boolean
  topicOf(path: ExactPath): Topic | null
  concerns(folder: ExactPath): boolean
  filesBelow(folder: ExactPath): WatchedFile[]
  /** Null: a home has been looked at, so that others can have their turn. */
  files(): Generator<WatchedFile | null>
  filesOfHome(home: Home): WatchedFile[]
  /** Gives the homes that were not known before. */
  setHomes(homes: readonly Home[], keyPatterns: readonly string[]): Home[]
  /** A file that a link of authorized keys leads to. */
  addKeyFile(path: ExactPath, user: string | null): void
  /** The home that a path lies in. */
  homeOf(path: ExactPath): ExactPath | null
}

const HOMES_MAX = 20_000
const KEY_FILES_MAX = 40_000
export const ENTRIES_MAX = 10_000

const keyTopic = (user: string | null): Topic => ({ kind: 'keys', user })

/** Folders of homes that lead to watched files, without the homes themselves. */
const HOME_WAYS: ReadonlySet<string> = new Set([
  ...HOME_FILES.flatMap(([, paths]) => paths.flatMap(ancestors)),
  ...HOME_FOLDERS.flatMap(([, , paths]) => paths.flatMap((path) => [path, ...ancestors(path)])),
])

export function createHomePlaces(options: {
  readonly list: (folder: ExactPath, entriesMax: number) => readonly FolderEntry[]
  /** Watched files in a folder. */
  readonly filesIn: (folder: ExactPath, depth: number) => Iterable<WatchedFile>
}): HomePlaces {
  const { list, filesIn } = options
  let homes = new Map<ExactPath, User>()
  let ways = new Set<ExactPath>()
  let keyFiles = new Map<ExactPath, string>()
  const linkedKeyFiles = new Map<ExactPath, string | null>()
  const files = createHomeFiles()
  /** Last components of all paths that matter. */
  const names = new Set<string>([...HOME_WAYS].map(lastComponent))

  function topicAtHome(path: ExactPath): Topic | null {
    for (const { below, topic } of files.named(lastComponent(path))) {
      if (!path.endsWith(`/${below}`)) continue
      const user = homes.get(path.slice(0, -below.length - 1))
      if (user !== undefined) return topic ?? keyTopic(user.name)
    }
    // HOME_FOLDERS all begin with one of these.
    let dot = path.indexOf('/.config/')
    if (dot === -1) dot = path.indexOf('/.local/')
    return dot !== -1 && homes.has(path.slice(0, dot)) ? topicBelowHome(path.slice(dot + 1)) : null
  }

  function homeOf(path: ExactPath): ExactPath | null {
    for (let end = path.lastIndexOf('/'); end >= 0; end = end === 0 ? -1 : path.lastIndexOf('/', end - 1)) {
      if (homes.has(path.slice(0, end))) return path.slice(0, end)
    }
    return null
  }

  function filesOfHome({ path: home, user }: Home): WatchedFile[] {
    const present = new Set(list(home === '' ? '/' : home, ENTRIES_MAX).map(({ name }) => name))
    const isPresent = (below: string) => present.has(below.split('/', 1)[0] ?? '')
    const found: WatchedFile[] = []
    for (const { below, topic } of files.all()) {
      if (isPresent(below)) found.push({ path: `${home}/${below}`, topic: topic ?? keyTopic(user.name) })
    }
    for (const [, depth, paths] of HOME_FOLDERS) {
      for (const below of paths) if (isPresent(below)) found.push(...filesIn(`${home}/${below}`, depth))
    }
    return found
  }

  function addHome({ path, user }: Home, patternsElsewhere: readonly string[]): void {
    const home = path.replace(/\/+$/, '')
    if (!homes.has(home)) homes.set(home, user)
    names.add(lastComponent(home))
    for (const way of ancestors(home)) {
      ways.add(way)
      names.add(lastComponent(way))
    }
    for (const pattern of patternsElsewhere) {
      const file = keyFileOf(pattern, { ...user, home })
      if (file === null || keyFiles.size >= KEY_FILES_MAX) continue
      keyFiles.set(toExact(file), user.name)
      names.add(lastComponent(toExact(file)))
    }
  }

  return {
    mayMatter: (path) =>
      names.has(lastComponent(path)) || path.includes('/.config/') || path.includes('/.local/'),
    topicOf(path) {
      const user = keyFiles.get(path) ?? linkedKeyFiles.get(path)
      return user === undefined ? topicAtHome(path) : keyTopic(user)
    },
    concerns(folder) {
      if (homes.has(folder) || ways.has(folder)) return true
      const home = homeOf(folder)
      return home !== null && HOME_WAYS.has(folder.slice(home.length + 1))
    },
    filesBelow(folder) {
      const inside = homes.has(folder) ? folder : homeOf(folder)
      return [...homes].flatMap(([path, user]) =>
        path === inside || path === folder || path.startsWith(`${folder}/`)
          ? filesOfHome({ path, user })
          : [],
      )
    },
    *files() {
      for (const [path, user] of keyFiles) yield { path, topic: keyTopic(user) }
      for (const [path, user] of homes) {
        yield* filesOfHome({ path, user })
        yield null
      }
    },
    filesOfHome: (home) => [
      ...filesOfHome(home),
      ...[...keyFiles].flatMap(([path, name]) =>
        name === home.user.name ? [{ path, topic: keyTopic(name) }] : [],
      ),
    ],
    setHomes(known, keyPatterns) {
      const earlier = homes
      homes = new Map()
      ways = new Set()
      keyFiles = new Map()
      files.setKeys(keyPatterns.flatMap(belowHome))
      for (const name of files.names()) names.add(name)
      const elsewhere = keyPatterns.filter((pattern) => belowHome(pattern).length === 0)
      for (const home of known.slice(0, HOMES_MAX)) addHome(home, elsewhere)
      return [...homes].flatMap(([path, user]) => (earlier.has(path) ? [] : [{ path, user }]))
    },
    addKeyFile(path, user) {
      if (linkedKeyFiles.size >= KEY_FILES_MAX) return
      linkedKeyFiles.set(path, user)
      names.add(lastComponent(path))
    },
    homeOf,
  }
}

/** Files below each home. The topic of keys (null here) names the user, who is known once the home is. */
function createHomeFiles() {
  type HomeFile = { readonly below: string; readonly topic: Topic | null }
  let byName = new Map<string, HomeFile[]>()
  const add = (below: string, topic: Topic | null) => {
    const name = lastComponent(below)
    byName.set(name, [...(byName.get(name) ?? []), { below, topic }])
  }
  return {
    named: (name: string): readonly HomeFile[] => byName.get(name) ?? [],
    names: () => byName.keys(),
    all: (): HomeFile[] => [...byName.values()].flat(),
    setKeys(keyFiles: readonly string[]) {
      byName = new Map()
      for (const [topic, paths] of HOME_FILES) for (const path of paths) add(path, topic)
      for (const path of keyFiles) add(path, null)
    },
  }
}

function topicBelowHome(below: string): Topic | null {
  for (const [topic, depth, paths] of HOME_FOLDERS) {
    const folder = paths.find((each) => below.startsWith(`${each}/`))
    if (folder === undefined) continue
    const rest = below.slice(folder.length + 1)
    return rest.split('/').length > depth + 1 ? null : topicInFolder(topic, rest)
  }
  return null
}

/** A pattern that names one file below each home, as its path there; else nothing. */
function belowHome(pattern: string): string[] {
  const below = pattern.replace(/^%h\/+/, '')
  return below.startsWith('/') || below.includes('%') ? [] : [below]
}

function lastComponent(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

/** The folders above a path, without the topmost. */
export function ancestors(path: string): string[] {
  const found: string[] = []
  for (let slash = path.lastIndexOf('/'); slash > 0; slash = path.lastIndexOf('/', slash - 1)) {
    found.push(path.slice(0, slash))
  }
  return found
}
