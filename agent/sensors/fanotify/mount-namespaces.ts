/**
 * The mount namespaces of other processes (mount_namespaces(7)): containers, and services with mounts of their
 * own. It finds them by looking at processes, says which file systems can be reached only through them, and
 * which folders of the host are theirs. A host where nothing new appears pays two small reads for each look.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { createPathTranslator, type TranslatePath } from './container-paths.ts'
import { type MountedFilesystem, parseMounts } from './mounts.ts'
import { type ForeignMount, findForeignMounts, type MountNamespace } from './namespace-mounts.ts'

export interface MountNamespaces {
  /** Looks for what is new, within bounds: what does not fit is looked at the next time. `noticed`: no list. */
  scan(what?: 'all' | 'noticed'): void
  /** This process is new, or changed its namespace or what is mounted there: the next look begins with it. */
  noticeNamespace(pid: number): void
  /** File systems that are not mounted in the agent's own namespace, each once. */
  mounts(): readonly ForeignMount[]
  /** Beginnings of the paths that lead into the namespaces, by a process of each. */
  roots(): readonly string[]
  /** For a path as the file events tell it; null when it lies in no container. */
  readonly translate: TranslatePath
}

export interface MountNamespacesOptions {
  /** Told of the folders that are a container's root, as the file events begin them, whenever they change. */
  readonly rootsChanged?: (rootPrefixes: readonly string[]) => void
  readonly procFolder?: string
  readonly processesPerScanMax?: number
  readonly namespacesMax?: number
}

const hintsMax = 1_024
/** Processes that are known: a bound above what pid_max mostly is. */
const processesMax = 65_536
/** Mount tables of known namespaces that are read again in one look: mounts change without a new namespace. */
const tablesPerScanMax = 32
/** Known processes that are looked at again: a pid may have been used again, or its namespace changed. */
const knownPerScanMax = 64
const tableBytesMax = 2 * 1024 ** 2

export function createMountNamespaces(options: MountNamespacesOptions = {}): MountNamespaces {
  const { procFolder = '/proc', processesPerScanMax = 1_024, namespacesMax = 256 } = options
  const proc = createProc(procFolder)
  const hints = new Set<number>()
  /** Namespace by process, in the order in which they were looked at. */
  const processes = new Map<number, number>()
  const namespaces = new Map<number, MountNamespace>()
  let ownTable = ''
  let newestPid = ''
  let isUnfinished = false
  let mounts: readonly ForeignMount[] = []
  let translate: TranslatePath = () => null

  /** Returns the namespace when it is not the agent's own. */
  function look(pid: number, ownInode: number): number | null {
    const inode = proc.namespaceOf(pid)
    processes.delete(pid)
    if (inode === null) return null
    if (processes.size < processesMax) processes.set(pid, inode)
    return inode === ownInode ? null : inode
  }

  /** Reads the mounts of a namespace through this process. True when they are others than before. */
  function readTable(inode: number, pid: number): boolean {
    const known = namespaces.get(inode)
    if (known === undefined && namespaces.size >= namespacesMax) return false
    const table = proc.mountTable(pid)
    if (table === null) return false
    const seesRoot = proc.rootOf(pid) === '/'
    if (known?.table === table && known.pid === pid && known.seesRoot === seesRoot) return false
    namespaces.set(inode, { inode, pid, seesRoot, table, mounts: parseMounts(table) })
    return true
  }

  /** A namespace is read through a process that lives, best one that has the namespace's root as its own. */
  function represent(inode: number, pid: number): boolean {
    const known = namespaces.get(inode)
    if (
      known !== undefined &&
      proc.namespaceOf(known.pid) === inode &&
      (known.seesRoot || proc.rootOf(pid) !== '/')
    ) {
      return false
    }
    return readTable(inode, pid)
  }

  /** Namespaces whose process ended are told through another one, or forgotten. */
  function replaceEnded(): boolean {
    let hasChanged = false
    for (const { inode, pid } of [...namespaces.values()]) {
      if (proc.namespaceOf(pid) === inode) continue
      processes.delete(pid)
      hasChanged = true
      namespaces.delete(inode)
      for (const [other, otherInode] of processes) {
        if (otherInode === inode && proc.namespaceOf(other) === inode && readTable(inode, other)) break
      }
    }
    return hasChanged
  }

  function lookAtProcesses(ownInode: number): boolean {
    const listed = proc.pids()
    const present = new Set(listed)
    for (const pid of processes.keys()) if (!present.has(pid)) processes.delete(pid)
    const fresh = listed.filter((pid) => !processes.has(pid) && !hints.has(pid))
    const looked = fresh.slice(0, processesPerScanMax)
    isUnfinished = fresh.length > looked.length
    const again = [...processes.keys()].slice(0, knownPerScanMax)
    let hasChanged = false
    for (const pid of [...looked, ...again]) {
      const inode = look(pid, ownInode)
      if (inode !== null && represent(inode, pid)) hasChanged = true
    }
    return hasChanged
  }

  function readHinted(ownInode: number): boolean {
    let hasChanged = false
    for (const pid of hints) {
      const inode = look(pid, ownInode)
      if (inode === null) continue
      const through = namespaces.get(inode)?.pid ?? pid
      if (represent(inode, pid) || readTable(inode, through)) hasChanged = true
    }
    hints.clear()
    return hasChanged
  }

  function readSomeTables(): boolean {
    let hasChanged = false
    for (const namespace of [...namespaces.values()].slice(0, tablesPerScanMax)) {
      if (readTable(namespace.inode, namespace.pid)) hasChanged = true
      const current = namespaces.get(namespace.inode)
      // To the end of the map, so that all get their turn.
      namespaces.delete(namespace.inode)
      if (current !== undefined) namespaces.set(namespace.inode, current)
    }
    return hasChanged
  }

  /** Nothing is new as long as no process is. */
  function lookForNew(ownInode: number): boolean {
    const pid = proc.newestPid()
    if (pid === newestPid && pid !== '' && !isUnfinished) return false
    newestPid = pid
    const hasFound = lookAtProcesses(ownInode)
    return readSomeTables() || hasFound
  }

  function rebuild(own: readonly MountedFilesystem[]): void {
    const ordered = [...namespaces.values()].sort((left, right) => left.inode - right.inode)
    const found = findForeignMounts(own, ordered, procFolder)
    mounts = found.mounts
    translate = createPathTranslator(found.folders)
    const roots = found.folders.filter(({ containerFolder }) => containerFolder === '/')
    options.rootsChanged?.([...new Set(roots.map(({ prefix }) => prefix))])
  }

  return {
    scan(what = 'all') {
      const table = proc.mountTable('self')
      const ownInode = proc.namespaceOf('self')
      if (table === null || ownInode === null) return
      let hasChanged = replaceEnded()
      if (table !== ownTable) hasChanged = true
      if (hints.size > 0 && readHinted(ownInode)) hasChanged = true
      if (what === 'all' && lookForNew(ownInode)) hasChanged = true
      ownTable = table
      if (hasChanged) rebuild(parseMounts(table))
    },
    noticeNamespace(pid) {
      if (hints.size < hintsMax) hints.add(pid)
    },
    mounts: () => mounts,
    roots: () => [...namespaces.values()].map(({ pid }) => `${procFolder}/${pid}/root`),
    translate: (path) => translate(path),
  }
}

/** What is read of /proc (proc(5)). A process may be gone at any instant: null. */
function createProc(folder: string) {
  const orNull = <Value>(read: () => Value): Value | null => {
    try {
      return read()
    } catch {
      return null
    }
  }
  return {
    namespaceOf(pid: number | 'self'): number | null {
      // `mnt:[4026531841]`
      const link = orNull(() => readlinkSync(`${folder}/${pid}/ns/mnt`))
      const inode = Number(/\[(\d{1,15})\]/.exec(link ?? '')?.[1])
      return Number.isInteger(inode) ? inode : null
    },
    rootOf: (pid: number): string | null => orNull(() => readlinkSync(`${folder}/${pid}/root`)),
    mountTable(pid: number | 'self'): string | null {
      const table = orNull(() => readFileSync(`${folder}/${pid}/mountinfo`, 'utf8'))
      return table?.slice(0, tableBytesMax) || null
    },
    /** The pid that was given out last, or '' when it cannot be told: then all are looked at. */
    newestPid: (): string =>
      orNull(() => readFileSync(`${folder}/loadavg`, 'latin1'))
        ?.trim()
        .split(' ')
        .at(-1) ?? '',
    pids: (): number[] =>
      (orNull(() => readdirSync(folder)) ?? []).map(Number).filter((pid) => Number.isInteger(pid)),
  }
}
