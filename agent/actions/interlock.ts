/**
 * Stands between every action and the host. Some processes are never touched: the first one, kernel threads,
 * and the agent with its ancestors and descendants. An agent that was not installed as a service belongs to
 * someone trying Cordon out: it also refuses isolation in the network namespace it was launched in, and
 * refuses to touch any process or file outside the test root or test cgroup that it was given at its start.
 */
import { realpathSync } from 'node:fs'
import { ancestorsOf, type ProcessFacts, type ProcessStat, readStat } from '../platform/linux/processes.ts'

export type Permission = { readonly ok: true } | { readonly ok: false; readonly reason: string }

export interface InterlockOptions {
  readonly installedAsService: boolean
  /** Folder; null when none was named. Resolved once, so that swapping it for a symlink later gains nothing. */
  readonly testRoot: string | null
  /** Cgroup path as /proc/PID/cgroup tells it, such as `/cordon-test`. */
  readonly testCgroup: string | null
  /** Such as `net:[4026531840]`, where the launcher runs; null when it recorded none. */
  readonly recordedNetworkNamespace: string | null
  readonly agentPid?: number
}

export interface Interlock {
  /** `facts` were read from /proc at the time of the action; `known` is a walk of that time, if there was one. */
  permitsProcess(facts: ProcessFacts, known?: ReadonlyMap<number, ProcessStat>): Permission
  /** `realPath`: the parent's real path and the name, as bytes or text. */
  permitsFile(realPath: Uint8Array | string): Permission
  /** `networkNamespace`: where isolation would be put in force. */
  permitsIsolation(networkNamespace: string): Permission
}

const PERMITTED: Permission = { ok: true }
const refuse = (reason: string): Permission => ({ ok: false, reason })

export function createInterlock(options: InterlockOptions): Interlock {
  const agentPid = options.agentPid ?? process.pid
  const root = resolveTestRoot(options.testRoot)
  const cgroup = resolveTestCgroup(options.testCgroup)

  function permitsProcess(facts: ProcessFacts, known?: ReadonlyMap<number, ProcessStat>): Permission {
    const never = refusedAlways(facts, agentPid, known)
    if (never !== null) return refuse(`${describe(facts)} is ${never}: no action ever touches it`)
    if (options.installedAsService) return PERMITTED
    if (cgroup.components && facts.cgroups.some((path) => isInside(splitPath(path), cgroup.components))) {
      return PERMITTED
    }
    // A path of another mount namespace may read like one of ours and be another place.
    const paths = facts.sameMounts ? [facts.executable, facts.workingDirectory] : []
    if (root.components && paths.some((path) => path && isInside(splitPath(path), root.components))) {
      return PERMITTED
    }
    return refuse(
      `${describe(facts)} is outside the test root (${root.told}) and the test cgroup (${cgroup.told}), and this agent was not installed as a service; start it with testRoot or testCgroup around what it may touch, or install it as a service`,
    )
  }

  function permitsFile(realPath: Uint8Array | string): Permission {
    if (options.installedAsService) return PERMITTED
    const parent = splitPath(realPath)?.slice(0, -1) ?? null
    if (root.components && isInside(parent, root.components)) return PERMITTED
    return refuse(
      `the file is outside the test root (${root.told}), and this agent was not installed as a service; start it with testRoot around what it may touch, or install it as a service`,
    )
  }

  function permitsIsolation(networkNamespace: string): Permission {
    if (options.installedAsService) return PERMITTED
    if (options.recordedNetworkNamespace === null) {
      return refuse(
        'the launcher recorded no network namespace (launcherNetworkNamespace), so this agent cannot tell whether isolation would cut off the one who launched it; start it with the recorded namespace, or install it as a service',
      )
    }
    if (!/^net:\[[0-9]+\]$/.test(networkNamespace)) return refuse('the network namespace could not be read')
    if (networkNamespace !== options.recordedNetworkNamespace) return PERMITTED
    return refuse(
      `${networkNamespace} is the network namespace of the launcher (launcherNetworkNamespace), and this agent was not installed as a service; start the agent in a network namespace of its own, or install it as a service`,
    )
  }

  return { permitsProcess, permitsFile, permitsIsolation }
}

function refusedAlways(
  facts: ProcessFacts,
  agentPid: number,
  known?: ReadonlyMap<number, ProcessStat>,
): string | null {
  if (facts.pid === 1) return 'the first process of the host'
  if (facts.kernelThread) return 'a thread of the kernel'
  if (facts.pid === agentPid) return 'the agent itself'
  if (facts.ancestors.includes(agentPid)) return 'a process of the agent'
  // The agent's ancestors change when one of them ends, so they are read each time.
  const agent = known?.get(agentPid) ?? readStat(agentPid)
  if (!agent) return 'beyond judgement, as the agent cannot see its own process'
  if (ancestorsOf(agent, known).includes(facts.pid)) return 'an ancestor of the agent'
  return null
}

function describe(facts: ProcessFacts): string {
  const executable = facts.executable?.toString('utf8') ?? printable(facts.name)
  return `process ${facts.pid} (${executable})`
}

function printable(name: string): string {
  return name.replace(/[^\x20-\x7e]/g, '?')
}

interface Place {
  /** Null: nothing is inside. */
  readonly components: readonly string[] | null
  /** For refusals: what was named, or what is wrong with it. */
  readonly told: string
}

function resolveTestRoot(testRoot: string | null): Place {
  if (testRoot === null) return { components: null, told: 'testRoot is not set' }
  let real: Buffer
  try {
    real = realpathSync(testRoot, 'buffer')
  } catch {
    return { components: null, told: `testRoot ${testRoot} does not exist` }
  }
  const components = splitPath(real)
  if (!components || components.length === 0) {
    return { components: null, told: 'testRoot is the whole host, which is no test root' }
  }
  return { components, told: real.toString('utf8') }
}

function resolveTestCgroup(testCgroup: string | null): Place {
  if (testCgroup === null) return { components: null, told: 'testCgroup is not set' }
  // People also write it as the path below /sys/fs/cgroup, without the slash.
  const components = splitPath(`/${testCgroup}`)
  if (!components || components.length === 0) {
    return { components: null, told: `testCgroup ${testCgroup} names no cgroup of its own` }
  }
  return { components, told: testCgroup }
}

/** Components of an absolute path, each byte one character; null when it is not plain (`..` and the like). */
function splitPath(path: Uint8Array | string): readonly string[] | null {
  const text = Buffer.from(path).toString('latin1')
  if (!text.startsWith('/')) return null
  const components = text.split('/').filter((component) => component !== '')
  return components.some((component) => component === '.' || component === '..') ? null : components
}

/** Component by component: `/root/test-evil` is not inside `/root/test`. The place itself counts as inside. */
function isInside(path: readonly string[] | null, place: readonly string[] | null): boolean {
  if (!path || !place) return false
  return path.length >= place.length && place.every((component, index) => path[index] === component)
}
