/**
 * Stops a process tree so that none of it can fork any more, then kills it. A tree that forks faster than it
 * is killed is only caught standing still: every member is stopped, and only looks in which all were seen
 * stopped and nobody else appeared, living or just ended, are the last ones.
 */
import { pause } from '../../shared/node/loop.ts'
import {
  isDead,
  lookAtProcesses,
  type OpenProcess,
  type ProcessHandle,
  type ProcessLook,
  type ProcessStat,
  readFacts,
  readStat,
  standing,
} from '../platform/linux/processes.ts'
import type { ProcessKey } from '../sensors/records.ts'
import type { Refusal } from './action.ts'
import type { Interlock } from './interlock.ts'

const TREE_PROCESSES_MAX = 4_096
/**
 * Looks without a change after which members that wait in the kernel are believed to stay there, and those who
 * ended before they could be read (there are always some on a busy host) to have been strangers.
 */
const QUIET_ROUNDS = 5
/** Looks one after the other in which all stood still and nobody appeared, before that is believed. */
const SETTLED_ROUNDS = 2
/** Looks at the process table; a storm that outruns this many is killed as far as it was found. */
const ROUNDS_MAX = 100
const EXIT_WAIT_MS = 5_000

export interface TreeMember {
  readonly key: ProcessKey
  readonly handle: ProcessHandle
  /** It stood still already: giving up must not wake it. */
  readonly stoppedBefore: boolean
}

/** Handles of a tree; disposing of it closes them. */
export interface Tree extends Disposable {
  readonly members: ReadonlyMap<number, TreeMember>
  readonly rounds: number
  /** False when members still appeared in the last round, or there were more than the bound. */
  readonly complete: boolean
}

export type StopResult =
  | { readonly kind: 'stopped'; readonly tree: Tree }
  | Refusal
  | { readonly kind: 'aborted' }

export interface TreeOptions {
  readonly openProcess: OpenProcess
  readonly interlock: Interlock
  /** Descendants that the sensors saw and whose parent is gone, so that /proc no longer shows whose they are. */
  readonly knownDescendants: (root: ProcessKey) => readonly ProcessKey[]
}

/**
 * Stops `root` and all its descendants. When one of them may not be touched, all that was stopped runs on and
 * the refusal names it. The caller opened, compared and was permitted `root`; its handle passes to the result.
 */
export async function stopTree(
  root: TreeMember,
  options: TreeOptions,
  signal: AbortSignal,
): Promise<StopResult> {
  const members = new Map<number, TreeMember>([[root.key.pid, root]])
  const stopped = new Set<TreeMember>()
  const closeHandles = () => {
    for (const member of members.values()) member.handle[Symbol.dispose]()
  }
  const giveUp = <Result>(result: Result): Result => {
    for (const member of stopped) if (!member.stoppedBefore) member.handle.send('SIGCONT')
    closeHandles()
    return result
  }
  let rounds = 0
  let complete = false
  let quiet = 0
  let settled = 0
  let harmless: ReadonlySet<number> = new Set()
  try {
    while (!complete && rounds < ROUNDS_MAX && members.size < TREE_PROCESSES_MAX) {
      rounds += 1
      if (signal.aborted) return giveUp({ kind: 'aborted' })
      // Looked at before the walk: whoever stood still then had no child that the walk could miss.
      const states = [...members.values()].map(stateOf)
      const look = lookAtProcesses()
      const found = newDescendants(root.key, members, look, options)
      const isNew = (pid: number) => !harmless.has(pid)
      const appeared = found.living.length > 0 || found.ended.some(isNew)
      const unknownEnded = look.vanished.some(isNew)
      harmless = found.harmless
      const refusal = admit(found.living, members, look.stats, options)
      if (refusal) return giveUp(refusal)
      const running = [...members.values()].filter((member) => !stopped.has(member))
      for (const member of running) {
        if (member.handle.send('SIGSTOP') === 'denied') return giveUp(signalDenied(member.key.pid))
        stopped.add(member)
      }
      const atRest = !appeared && running.length === 0 && !states.includes('moving')
      quiet = atRest ? quiet + 1 : 0
      settled = atRest && !unknownEnded && !states.includes('blocked') ? settled + 1 : 0
      complete = settled >= SETTLED_ROUNDS || quiet >= QUIET_ROUNDS
      // Stopping takes effect when a process next leaves the kernel: let it.
      if (!complete && running.length === 0 && settled === 0) await pause(1, signal)
    }
  } catch (error) {
    giveUp(null)
    throw error
  }
  return { kind: 'stopped', tree: { members, rounds, complete, [Symbol.dispose]: closeHandles } }
}

/** A tree of one, not stopped: nothing else was asked for, so what it leaves behind is not awaited. */
export function treeOfOne(root: TreeMember): Tree {
  const members = new Map([[root.key.pid, root]])
  return {
    members,
    rounds: 0,
    complete: true,
    [Symbol.dispose]: () => root.handle[Symbol.dispose](),
  }
}

export function signalDenied(pid: number): Refusal {
  const reason = `the system does not allow this agent to signal process ${pid}; run the agent as root`
  return { kind: 'refused', code: 'denied', reason }
}

function stateOf(member: TreeMember): ReturnType<typeof standing> {
  const stat = readStat(member.key.pid)
  return !stat || stat.startTicks !== member.key.startTicks ? 'still' : standing(stat)
}

interface Descendants {
  /** Those that run and are not members yet. */
  readonly living: ProcessStat[]
  /** Those that have ended: one that did so during the look may have left a child that was not listed. */
  readonly ended: readonly number[]
  /** Whoever had no part in the tree, or could do nothing any more, at the time of the look. */
  readonly harmless: ReadonlySet<number>
}

/**
 * Processes below the members that are not members themselves: by parent, by a session that a member leads
 * (who is in a session descends from its leader), or as the sensors saw it.
 */
function newDescendants(
  root: ProcessKey,
  members: ReadonlyMap<number, TreeMember>,
  { stats }: ProcessLook,
  options: TreeOptions,
): Descendants {
  const inside = new Set(members.keys())
  for (const known of options.knownDescendants(root)) {
    if (stats.get(known.pid)?.startTicks === known.startTicks) inside.add(known.pid)
  }
  // A child may have a lower pid than its parent, so one walk does not find all levels.
  for (let size = -1; size !== inside.size; ) {
    size = inside.size
    for (const stat of stats.values()) {
      if (inside.has(stat.parentPid) || inside.has(stat.sessionId)) inside.add(stat.pid)
    }
  }
  const others = [...inside]
    .filter((pid) => !members.has(pid))
    .map((pid) => stats.get(pid))
    .filter((stat) => stat !== undefined)
  const living = others.filter((stat) => !isDead(stat))
  const active = new Set(living.map((stat) => stat.pid))
  return {
    living: living.slice(0, TREE_PROCESSES_MAX - members.size),
    ended: others.filter(isDead).map((stat) => stat.pid),
    harmless: new Set([...stats.keys(), ...members.keys()].filter((pid) => !active.has(pid))),
  }
}

/** Takes hold of each process found; a refusal when one of them may not be touched. */
function admit(
  found: readonly ProcessStat[],
  members: Map<number, TreeMember>,
  stats: ReadonlyMap<number, ProcessStat>,
  options: TreeOptions,
): Refusal | null {
  for (const stat of found) {
    const handle = options.openProcess(stat.pid)
    if (!handle) continue
    const facts = readFacts(stat.pid, stats)
    // It ended, or its pid passed on, between the walk and the hold: then it is no longer of the tree.
    if (!facts || facts.startTicks !== stat.startTicks) {
      handle[Symbol.dispose]()
      continue
    }
    const permission = options.interlock.permitsProcess(facts, stats)
    // Where it was is no longer told of one that is ending, and it needs nobody to end it.
    if (!permission.ok && isEnding(stat)) {
      handle[Symbol.dispose]()
      continue
    }
    const key = { pid: stat.pid, startTicks: stat.startTicks }
    members.set(stat.pid, { key, handle, stoppedBefore: stat.state === 'T' })
    if (!permission.ok) return { kind: 'refused', code: 'interlock', reason: permission.reason }
  }
  return null
}

function isEnding({ pid, startTicks }: ProcessKey): boolean {
  const now = readStat(pid)
  return !now || now.startTicks !== startTicks || now.exiting || isDead(now)
}

export interface KillFigures {
  /** Still running after the wait. */
  readonly survivors: readonly number[]
  readonly denied: readonly number[]
}

/** Kills every member and waits, bounded, until the kernel says that each has exited. */
export async function killTree(tree: Tree, signal: AbortSignal): Promise<KillFigures> {
  const members = [...tree.members.values()]
  const denied = members.filter((member) => member.handle.send('SIGKILL') === 'denied')
  const deadlineMs = performance.now() + EXIT_WAIT_MS
  let survivors = members.filter((member) => !member.handle.exited())
  while (survivors.length > 0 && performance.now() < deadlineMs && !signal.aborted) {
    await pause(1, signal)
    survivors = survivors.filter((member) => !member.handle.exited())
  }
  return { survivors: survivors.map(pidOf), denied: denied.map(pidOf) }
}

function pidOf(member: TreeMember): number {
  return member.key.pid
}

/** Descendants of the killed that a last look still finds alive, by what the kernel and what the sensors tell. */
export function strayDescendants(tree: Tree, options: TreeOptions, root: ProcessKey): number[] {
  return newDescendants(root, tree.members, lookAtProcesses(), options).living.map((stat) => stat.pid)
}
