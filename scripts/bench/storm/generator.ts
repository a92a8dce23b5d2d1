/** The storms themselves: a C program that makes them, in a cgroup of the bench's own that bounds its processes. */
import { execFileSync, spawn } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { compileTinyExit } from '../../../agent/native/testing/compile.ts'

const PROCESSES_MAX = 500
/** cgroup v1's hierarchy of its own for this controller, else the one hierarchy of v2 (cgroups(7)). */
const PIDS_V1 = '/sys/fs/cgroup/pids'
const UNIFIED = '/sys/fs/cgroup'
const CGROUP_PREFIX = 'cordon-bench-storm-'
const MEMORY = '/dev/shm'
/** As statfs(2) names tmpfs. */
const TMPFS_MAGIC = 0x01021994
/** 20,000 files of a page each, and what their names take. */
const FILES_BYTES_MAX = 128 * 1024 ** 2
const REMOVE_TRIES_MAX = 50

export type Storm =
  | { readonly kind: 'processes'; readonly count: number; readonly secondsMax: number }
  | { readonly kind: 'files' | 'files-apart'; readonly count: number }
  /** `ratePerSecond` 0: as fast as it can. */
  | { readonly kind: 'connections'; readonly count: number; readonly ratePerSecond: number }

export interface Made {
  readonly made: number
  readonly seconds: number
  /** What it took of the processor itself, in the kernel too: what others do on the host weighs less on it. */
  readonly cpuSeconds: number
  /** Processes that did it; of a storm of processes, those that started them. */
  readonly pids: readonly number[]
}

export interface Generator {
  /** What a storm of processes starts: no other program has this path. */
  readonly executable: string
  /** Where a storm of files makes them. */
  readonly filesFolder: string
  run(storm: Storm): Promise<Made>
  /** Removes the cgroup, and the folder of files. */
  close(): Promise<void>
}

/** Throws with the mend when there can be no such cgroup. */
export function createGenerator(folder: string): Generator {
  const program = join(folder, 'make-storm')
  const source = join(import.meta.dirname, '..', 'native', 'make-storm.c')
  execFileSync('gcc', ['-O2', '-static', '-Wall', '-Wextra', '-Werror', '-o', program, source])
  const executable = compileTinyExit(folder, `storm-${process.pid}`)
  const filesFolder = makeFilesFolder(folder)
  const hierarchy = findPidsHierarchy()
  removeLeftovers(hierarchy)
  const cgroup = join(hierarchy, `${CGROUP_PREFIX}${process.pid}`)
  mkdirSync(cgroup)
  writeFileSync(join(cgroup, 'pids.max'), String(PROCESSES_MAX))

  return {
    executable,
    filesFolder,
    run: (storm) => runProgram(program, [cgroup, storm.kind, ...argumentsOf(storm, executable, filesFolder)]),
    async close() {
      rmSync(filesFolder, { recursive: true, force: true })
      for (let tries = 1; ; tries += 1) {
        try {
          return rmdirSync(cgroup)
        } catch (error) {
          // The last of its processes may still be leaving.
          if (tries >= REMOVE_TRIES_MAX) throw error
          await sleep(100)
        }
      }
    },
  }
}

/** In memory where it can be: a disk would tell how busy the controller's store keeps it, and all else on the host. */
function makeFilesFolder(folder: string): string {
  if (existsSync(MEMORY)) {
    const { type, bavail, bsize } = statfsSync(MEMORY)
    if (type === TMPFS_MAGIC && bavail * bsize >= FILES_BYTES_MAX)
      return mkdtempSync(join(MEMORY, 'cordon-bench-storm-'))
  }
  const files = join(folder, 'files')
  mkdirSync(files)
  return files
}

function argumentsOf(storm: Storm, executable: string, filesFolder: string): string[] {
  switch (storm.kind) {
    case 'processes':
      return [String(storm.count), String(storm.secondsMax), executable]
    case 'connections':
      return [String(storm.count), String(storm.ratePerSecond)]
    default:
      return [String(storm.count), filesFolder]
  }
}

function findPidsHierarchy(): string {
  if (existsSync(join(PIDS_V1, 'cgroup.procs'))) return PIDS_V1
  const controllers = join(UNIFIED, 'cgroup.controllers')
  if (existsSync(controllers) && readFileSync(controllers, 'utf8').split(/\s+/).includes('pids')) {
    writeFileSync(join(UNIFIED, 'cgroup.subtree_control'), '+pids')
    return UNIFIED
  }
  throw new Error(
    `a storm of processes needs the cgroup controller pids, at ${PIDS_V1} (v1) or in ${controllers} (v2): mount it`,
  )
}

/** Of runs that were killed. One whose processes are still there stays. */
function removeLeftovers(hierarchy: string): void {
  for (const name of readdirSync(hierarchy)) {
    if (!name.startsWith(CGROUP_PREFIX)) continue
    try {
      rmdirSync(join(hierarchy, name))
    } catch {
      // It is in use.
    }
  }
}

function runProgram(program: string, values: readonly string[]): Promise<Made> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, values, { stdio: ['ignore', 'pipe', 'pipe'] })
    let text = ''
    let complaint = ''
    child.stdout.on('data', (chunk) => {
      text += chunk
    })
    child.stderr.on('data', (chunk) => {
      complaint += chunk
    })
    child.once('error', reject)
    child.once('close', (code) => {
      if (code === 0) resolve(JSON.parse(text))
      else reject(new Error(`${values.join(' ')} ended with ${code}: ${complaint.trim()}`))
    })
  })
}
