/** Finds out whether a path is configuration, and lists what there is of it: the fixed places, and those in homes. */
import { type ExactPath, linkTarget } from '../exact-path.ts'
import type { FolderEntry } from '../safe-read.ts'
import type { WatchedFile } from './configuration-root.ts'
import { ancestors, createHomePlaces, ENTRIES_MAX, type HomePlaces } from './home-places.ts'
import {
  type Topic,
  topicInFolder,
  WATCHED_FILES,
  WATCHED_FOLDERS,
  type WatchedFolder,
} from './watched-places.ts'

export interface Places extends HomePlaces {
  /** Whether watched files can lie at or below a folder, so that its renaming or linking matters. */
  concerns(folder: ExactPath): boolean
  /** Whether a link that lies at `from` names a unit in a folder of units. */
  isUnitPath(from: ExactPath, link: ExactPath): boolean
}

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
  const homes = createHomePlaces({ list, filesIn })

  function topicInFixedPlaces(path: ExactPath): Topic | null {
    const file = files.get(path)
    if (file !== undefined) return file
    const slash = path.lastIndexOf('/')
    const parent = path.slice(0, slash)
    const folder = folders.get(parent)
    if (folder !== undefined) return topicInFolder(folder.topic, path.slice(slash + 1))
    const above = parent.lastIndexOf('/')
    const outer = folders.get(parent.slice(0, above))
    return outer !== undefined && outer.depth > 0 ? topicInFolder(outer.topic, path.slice(above + 1)) : null
  }

  const topicOf = (path: ExactPath) => topicInFixedPlaces(path) ?? homes.topicOf(path)

  function* filesIn(folder: ExactPath, depth: number): Generator<WatchedFile> {
    for (const { name, isFolder } of list(folder, ENTRIES_MAX)) {
      const path = `${folder}/${name}`
      if (isFolder && depth > 0 && !folders.has(path)) yield* filesIn(path, depth - 1)
      const topic = isFolder ? null : topicOf(path)
      if (topic !== null) yield { path, topic }
    }
  }

  return {
    ...homes,
    mayMatter: (path) => isNearFixedPlaces(path) || homes.mayMatter(path),
    topicOf,
    concerns(folder) {
      if (ways.has(folder) || folders.has(folder) || homes.concerns(folder)) return true
      const parent = folder.slice(0, folder.lastIndexOf('/'))
      return (folders.get(parent)?.depth ?? 0) > 0
    },
    filesBelow(folder) {
      const found: WatchedFile[] = []
      const holds = (path: ExactPath) => path === folder || path.startsWith(`${folder}/`)
      for (const [path, topic] of files) if (holds(path)) found.push({ path, topic })
      for (const [path, { depth }] of folders) {
        if (holds(path)) found.push(...filesIn(path, depth))
        else if (folder.startsWith(`${path}/`)) found.push(...filesIn(folder, depth - 1))
      }
      return [...found, ...homes.filesBelow(folder)]
    },
    *files() {
      for (const [path, topic] of files) yield { path, topic }
      for (const [path, { depth }] of folders) yield* filesIn(path, depth)
      yield* homes.files()
    },
    isUnitPath(from, link) {
      const topic = topicOf(linkTarget(from, link))
      return topic?.kind === 'unit' && topic.place.role === 'unit'
    },
  }
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
    path === '/usr/local/lib' ||
    path === '/usr/share'
  )
}
