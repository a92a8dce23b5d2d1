/**
 * Finds out whether a path is configuration, and lists what there is of it. The fixed places stand in tables of
 * whole paths; homes are found by the name of a file first, for there can be thousands of them.
 */

import { type ExactPath, linkTarget, toExact } from '../exact-path.ts'
import type { FolderEntry } from '../safe-read.ts'
import { keyFileOf } from './authorized-keys.ts'
import type { WatchedFile } from './configuration-root.ts'
import {
  HOME_FILES,
  HOME_FOLDERS,
  type Topic,
  topicInFolder,
  WATCHED_FILES,
  WATCHED_FOLDERS,
  type WatchedFolder,
} from './watched-places.ts'

interface User {
  readonly name: string
  readonly id: string
}

export interface Home {
  readonly path: ExactPath
  readonly user: User
}

export interface Places {
  /** False for nearly every path, and quickly: neither it nor what is below it is configuration. */
  mayMatter(path: ExactPath): boolean
  topicOf(path: ExactPath): Topic | null
  /** Whether watched files can lie at or below a folder, so that its renaming or linking matters. */
  concerns(folder: ExactPath): boolean
  filesBelow(folder: ExactPath): WatchedFile[]
  /** Null: a home has been looked at, so that others can have their turn. */
  files(): Generator<WatchedFile | null>
  filesOfHome(home: Home): WatchedFile[]
  /** Gives the homes that were not known before. */
  setHomes(homes: readonly Home[], keyPatterns: readonly string[]): Home[]
  /** A file that a link of authorized keys leads to. */
  addKeyFile(path: ExactPath, user: string | null): void
  homeOf(path: ExactPath): ExactPath | null
  isUnitPath(from: ExactPath, link: ExactPath): boolean
}

const HOMES_MAX = 20_000
const KEY_FILES_MAX = 40_000
const ENTRIES_MAX = 10_000

const keyTopic = (user: string | null): Topic => ({ kind: 'keys', user })

/** Folders of homes that lead to watched files, without the homes themselves. */
const HOME_WAYS: ReadonlySet<string> = new Set(
  [...HOME_FOLDERS, ...HOME_FILES].flatMap((row) =>
    (row.at(-1) as readonly string[]).flatMap((path) => [
      ...ancestors(path),
      ...(row.length === 3 ? [path] : []),
    ]),
  ),
)

export function createPlaces(options: {
  readonly list: (folder: ExactPath, entriesMax: number) => readonly FolderEntry[]
}): Places {
  const { list } = options
  const files = new Map<ExactPath, Topic>()
  const folders = new Map<ExactPath, WatchedFolder>()
  const ways = new Set<ExactPath>()
  for (const [topic, paths] of WATCHED_FILES) for (const path of paths) files.set(path, topic)
  for (const [topic, depth, paths] of WATCHED_FOLDERS) {
    for (const path of paths) folders.set(path, { topic, depth })
  }
  for (const path of [...files.keys(), ...folders.keys()]) for (const way of ancestors(path)) ways.add(way)

  let homes = new Map<ExactPath, User>()
  let homeWays = new Set<ExactPath>()
  let keyFiles = new Map<ExactPath, string | null>()
  /** Paths below a home, by the last component. */
  const homeFiles = new Map<string, { readonly below: string; readonly topic: Topic | null }[]>()
  let homeKeyFiles: readonly string[] = []
  const linkedKeyFiles = new Map<ExactPath, string | null>()

  /** Last components of all paths that matter outside of the fixed places. */
  const names = new Set<string>()
  for (const way of HOME_WAYS) names.add(lastComponent(way))

  function mayMatter(path: ExactPath): boolean {
    return (
      isNearFixedPlaces(path) ||
      names.has(lastComponent(path)) ||
      path.includes('/.config/') ||
      path.includes('/.local/')
    )
  }

  function setHomeFiles(): void {
    homeFiles.clear()
    const add = (below: string, topic: Topic | null) => {
      const name = lastComponent(below)
      names.add(name)
      homeFiles.set(name, [...(homeFiles.get(name) ?? []), { below, topic }])
    }
    for (const [topic, paths] of HOME_FILES) for (const path of paths) add(path, topic)
    // The topic of keys names the user, who is known once the home is.
    for (const path of homeKeyFiles) add(path, null)
  }

  function topicAtHome(path: ExactPath, name: string): Topic | null {
    for (const { below, topic } of homeFiles.get(name) ?? []) {
      if (!path.endsWith(`/${below}`)) continue
      const user = homes.get(path.slice(0, -below.length - 1))
      if (user !== undefined) return topic ?? keyTopic(user.name)
    }
    // HOME_FOLDERS all begin with one of these.
    let dot = path.indexOf('/.config/')
    if (dot === -1) dot = path.indexOf('/.local/')
    if (dot === -1 || !homes.has(path.slice(0, dot))) return null
    const below = path.slice(dot + 1)
    for (const [topic, depth, paths] of HOME_FOLDERS) {
      const folder = paths.find((each) => below.startsWith(`${each}/`))
      if (folder !== undefined) return topicBelow({ topic, depth }, below.slice(folder.length + 1))
    }
    return null
  }

  function topicOf(path: ExactPath): Topic | null {
    const file = files.get(path)
    if (file !== undefined) return file
    const slash = path.lastIndexOf('/')
    const parent = path.slice(0, slash)
    const name = path.slice(slash + 1)
    const folder = folders.get(parent)
    if (folder !== undefined) {
      const topic = topicInFolder(folder.topic, name)
      if (topic !== null) return topic
    } else {
      const above = parent.lastIndexOf('/')
      const outer = folders.get(parent.slice(0, above))
      if (outer !== undefined && outer.depth > 0) return topicInFolder(outer.topic, path.slice(above + 1))
    }
    const keyUser = keyFiles.get(path) ?? linkedKeyFiles.get(path)
    if (keyUser !== undefined) return keyTopic(keyUser)
    return topicAtHome(path, name)
  }

  function* filesIn(folder: ExactPath, depth: number): Generator<WatchedFile> {
    for (const { name, isFolder } of list(folder, ENTRIES_MAX)) {
      const path = `${folder}/${name}`
      if (isFolder && depth > 0 && !folders.has(path)) yield* filesIn(path, depth - 1)
      const topic = isFolder ? null : topicOf(path)
      if (topic !== null) yield { path, topic }
    }
  }

  function filesOfHome({ path: home, user }: Home): WatchedFile[] {
    const present = new Set(list(home === '' ? '/' : home, ENTRIES_MAX).map(({ name }) => name))
    const isPresent = (below: string) => present.has(below.split('/', 1)[0] ?? '')
    const found: WatchedFile[] = []
    for (const places of homeFiles.values()) {
      for (const { below, topic } of places) {
        if (isPresent(below)) found.push({ path: `${home}/${below}`, topic: topic ?? keyTopic(user.name) })
      }
    }
    for (const [, depth, paths] of HOME_FOLDERS) {
      for (const below of paths) {
        if (isPresent(below)) found.push(...filesIn(`${home}/${below}`, depth))
      }
    }
    return found
  }

  /** Keys of a user that lie outside of the home. */
  function keyFilesOf(user: User): WatchedFile[] {
    return [...keyFiles].flatMap(([path, name]) =>
      name === user.name ? [{ path, topic: keyTopic(name) }] : [],
    )
  }

  function homeAbove(path: ExactPath): ExactPath | null {
    for (let end = path.lastIndexOf('/'); end >= 0; end = end === 0 ? -1 : path.lastIndexOf('/', end - 1)) {
      if (homes.has(path.slice(0, end))) return path.slice(0, end)
    }
    return null
  }

  return {
    mayMatter,
    topicOf,
    concerns(folder) {
      if (ways.has(folder) || folders.has(folder) || homes.has(folder) || homeWays.has(folder)) return true
      const parent = folder.slice(0, folder.lastIndexOf('/'))
      if ((folders.get(parent)?.depth ?? 0) > 0) return true
      const home = homeAbove(folder)
      return home !== null && HOME_WAYS.has(folder.slice(home.length + 1))
    },
    filesBelow(folder) {
      const found: WatchedFile[] = []
      const holds = (path: ExactPath) => path === folder || path.startsWith(`${folder}/`)
      for (const [path, topic] of files) if (holds(path)) found.push({ path, topic })
      for (const [path, watched] of folders) {
        if (holds(path)) found.push(...filesIn(path, watched.depth))
        else if (folder.startsWith(`${path}/`)) found.push(...filesIn(folder, watched.depth - 1))
      }
      const inside = homes.has(folder) ? folder : homeAbove(folder)
      for (const [path, user] of homes) {
        if (path === inside || holds(path)) found.push(...filesOfHome({ path, user }))
      }
      return found
    },
    *files() {
      for (const [path, topic] of files) yield { path, topic }
      for (const [path, watched] of folders) yield* filesIn(path, watched.depth)
      for (const [path, user] of keyFiles) yield { path, topic: keyTopic(user) }
      for (const [path, user] of homes) {
        yield* filesOfHome({ path, user })
        yield null
      }
    },
    filesOfHome: (home) => [...filesOfHome(home), ...keyFilesOf(home.user)],
    setHomes(known, keyPatterns) {
      const earlier = homes
      homes = new Map()
      homeWays = new Set()
      keyFiles = new Map()
      const below = keyPatterns.flatMap((pattern) => belowHome(pattern))
      const elsewhere = keyPatterns.filter((pattern) => belowHome(pattern).length === 0)
      if (below.join('\n') !== homeKeyFiles.join('\n') || homeFiles.size === 0) {
        homeKeyFiles = below
        setHomeFiles()
      }
      for (const { path, user } of known.slice(0, HOMES_MAX)) {
        const home = path.replace(/\/+$/, '')
        if (!homes.has(home)) homes.set(home, user)
        names.add(lastComponent(home))
        for (const way of ancestors(home)) {
          homeWays.add(way)
          names.add(lastComponent(way))
        }
        for (const pattern of elsewhere) {
          const file = keyFileOf(pattern, { ...user, home })
          if (file === null || keyFiles.size >= KEY_FILES_MAX) continue
          keyFiles.set(toExact(file), user.name)
          names.add(lastComponent(toExact(file)))
        }
      }
      return [...homes].flatMap(([path, user]) => (earlier.has(path) ? [] : [{ path, user }]))
    },
    addKeyFile(path, user) {
      if (linkedKeyFiles.size >= KEY_FILES_MAX) return
      linkedKeyFiles.set(path, user)
      names.add(lastComponent(path))
    },
    homeOf: homeAbove,
    isUnitPath(from, link) {
      const topic = topicOf(linkTarget(from, link))
      return topic?.kind === 'unit' && topic.place.role === 'unit'
    },
  }
}

function topicBelow({ topic, depth }: WatchedFolder, below: string): Topic | null {
  return below.split('/').length > depth + 1 ? null : topicInFolder(topic, below)
}

/** Every path of WATCHED_FILES and WATCHED_FOLDERS, and what leads there, begins so. */
function isNearFixedPlaces(path: ExactPath): boolean {
  return (
    path.startsWith('/etc') ||
    path.startsWith('/var/spool') ||
    path.startsWith('/usr/lib') ||
    path.startsWith('/usr/local/lib/systemd') ||
    path.startsWith('/usr/share/gnome') ||
    path.startsWith('/run') ||
    path.startsWith('/lib') ||
    path === '/var' ||
    path === '/usr' ||
    path === '/usr/local' ||
    path === '/usr/share'
  )
}

function lastComponent(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

/** A pattern that names one file below each home, as its path there; else nothing. */
function belowHome(pattern: string): string[] {
  const below = pattern.replace(/^%h\/+/, '')
  return below.startsWith('/') || below.includes('%') ? [] : [below]
}

/** The folders above a path, without the topmost. */
function ancestors(path: string): string[] {
  const found: string[] = []
  for (let slash = path.lastIndexOf('/'); slash > 0; slash = path.lastIndexOf('/', slash - 1)) {
    found.push(path.slice(0, slash))
  }
  return found
}
