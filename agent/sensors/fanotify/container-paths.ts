/**
 * From a path as the file events tell it to the path that a container sees. It is asked for every file event, so
 * a host without containers pays one comparison, and one with many a lookup by folder.
 */
import { isUtf8 } from 'node:buffer'
import type { KernelText } from '../records.ts'

export interface ContainerFolder {
  /** As the events tell it, without a slash at its end. */
  readonly prefix: string
  /** What the container calls it; `/` for its root. */
  readonly containerFolder: string
  readonly namespaceInode: number
}

export interface ContainerLocation {
  /** The folder that the event's path begins with. */
  readonly rootPrefix: string
  readonly containerPath: KernelText
  readonly namespaceInode: number
}

export type TranslatePath = (path: KernelText) => ContainerLocation | null

const cachedFoldersMax = 8_192
const slash = 47

/** Of folders with the same prefix, the first stands; of folders inside each other, the inner one answers. */
export function createPathTranslator(folders: readonly ContainerFolder[]): TranslatePath {
  if (folders.length === 0) return () => null
  const byPrefix = new Map<string, ContainerFolder>()
  const depths = new Set<number>()
  for (const folder of folders) {
    if (!byPrefix.has(folder.prefix)) byPrefix.set(folder.prefix, folder)
    depths.add(folder.prefix.split('/').length - 1)
  }
  const shared = sharedHead([...byPrefix.keys()])
  const cache = new Map<string, ContainerFolder | null>()

  /** `parent` has no slash at its end. */
  function find(parent: string): ContainerFolder | null {
    const cached = cache.get(parent)
    if (cached !== undefined) return cached
    let found: ContainerFolder | null = null
    let depth = 0
    for (let end = 0; end !== -1 && end < parent.length; depth += 1) {
      const next = parent.indexOf('/', end + 1)
      end = next
      if (depths.has(depth + 1)) found = byPrefix.get(next === -1 ? parent : parent.slice(0, next)) ?? found
    }
    if (cache.size >= cachedFoldersMax) cache.clear()
    cache.set(parent, found)
    return found
  }

  return (path) => {
    if (typeof path !== 'string') return translateBytes(path, find)
    if (!path.startsWith(shared)) return null
    const folder = find(path.slice(0, path.lastIndexOf('/')))
    if (folder === null) return null
    const rest = path.slice(folder.prefix.length)
    const { prefix, containerFolder, namespaceInode } = folder
    return {
      rootPrefix: prefix,
      containerPath: containerFolder === '/' ? rest : containerFolder + rest,
      namespaceInode,
    }
  }
}

/** A name that is not UTF-8 may lie in a folder that is. */
function translateBytes(
  path: Uint8Array,
  find: (parent: string) => ContainerFolder | null,
): ContainerLocation | null {
  const bytes = Buffer.from(path.buffer, path.byteOffset, path.byteLength)
  for (let end = bytes.lastIndexOf(slash); end > 0; end = bytes.lastIndexOf(slash, end - 1)) {
    const parent = bytes.subarray(0, end)
    if (!isUtf8(parent)) continue
    const folder = find(parent.toString('utf8'))
    if (folder === null) return null
    const rest = bytes.subarray(Buffer.byteLength(folder.prefix))
    const head = folder.containerFolder === '/' ? '' : folder.containerFolder
    const containerPath = new Uint8Array(Buffer.concat([Buffer.from(head), rest]))
    return { rootPrefix: folder.prefix, containerPath, namespaceInode: folder.namespaceInode }
  }
  return null
}

function sharedHead(texts: readonly string[]): string {
  let head = texts[0] ?? ''
  for (const text of texts) {
    while (!text.startsWith(head)) head = head.slice(0, -1)
  }
  return head
}
