/**
 * Which processes live, by pid: the start time that names each of them for good, and how many threads it has,
 * because the kernel tells the exit of threads and not of processes.
 *
 * A start time comes from /proc while the process is there to be read. One that is gone by then gets the time of
 * its fork, which the kernel takes some microseconds later: in ticks that is the same, save for the process that
 * started on the edge of a tick. Nobody can find another number any more, so the name stays unambiguous.
 */
import type { ProcessKey } from '../records.ts'
import type { ProcessEvent } from './process-events.ts'

export interface ProcessState {
  readonly startTicks: number
  readonly parentPid: number
  /** Pid of the leader of its session. */
  readonly sessionId: number
  readonly threads: number
}

/** /proc, as far as it is needed here (`agent/platform/linux/processes.ts`). */
export interface ProcessStates {
  readonly readStat: (pid: number) => ProcessState | null
  readonly listStats: () => ReadonlyMap<number, ProcessState>
}

interface Life {
  readonly startTicks: number
  readonly parentPid: number
  sessionId: number
  threads: number
  /** Of a leader that exited before its threads: the process lives on. */
  leaderStatus: number | null
  ended: boolean
}

export interface ProcessLives {
  /** Takes what runs already. */
  load(): void
  /** The new process, or null for a thread, also one of the kernel's. `mayBeRead`: it did not end since. */
  fork(event: Extract<ProcessEvent, { kind: 'fork' }>, mayBeRead: boolean): ProcessKey | null
  exec(event: Extract<ProcessEvent, { kind: 'exec' }>): ProcessKey
  /** The process that is over and its status, or null when it lives on or never was known. */
  exit(event: Extract<ProcessEvent, { kind: 'exit' }>): { key: ProcessKey; status: number } | null
  /** The process leads a session of its own from now on. */
  beginSession(pid: number): void
  /** 0 when it is not known. */
  sessionOf(pid: number): number
  keyOf(pid: number): ProcessKey | null
  parentOf(pid: number): ProcessKey
  size(): number
}

/** Kernel threads are no processes: all are children of this one. Asking audit for its state makes one. */
const kernelThreadsParent = 2
const livesMax = 65_536
/** Ended processes are remembered until so many others ended: what is told late still finds their names. */
const endedMax = 4_096

export function createProcessLives(
  states: ProcessStates,
  ticksAt: (timestampNs: number) => number,
): ProcessLives {
  const lives = new Map<number, Life>()
  const ended: { pid: number; life: Life }[] = []

  function put(pid: number, life: Life): Life {
    lives.delete(pid)
    lives.set(pid, life)
    if (lives.size > livesMax) {
      const oldest = lives.keys().next()
      if (!oldest.done) lives.delete(oldest.value)
    }
    return life
  }

  function begin(pid: number, state: ProcessState): Life {
    const { startTicks, parentPid, sessionId, threads } = state
    return put(pid, { startTicks, parentPid, sessionId, threads, leaderStatus: null, ended: false })
  }

  function end(pid: number, life: Life, status: number) {
    life.ended = true
    ended.push({ pid, life })
    if (ended.length > endedMax) {
      const oldest = ended.shift()
      if (oldest && lives.get(oldest.pid) === oldest.life) lives.delete(oldest.pid)
    }
    return { key: { pid, startTicks: life.startTicks }, status }
  }

  /** Whether threads are left, as /proc tells: the count here is wrong after a loss. */
  function livesOn(pid: number, life: Life): boolean {
    const state = states.readStat(pid)
    return state !== null && state.startTicks === life.startTicks && state.threads > 1
  }

  return {
    load() {
      for (const [pid, state] of states.listStats()) if (!lives.has(pid)) begin(pid, state)
    },
    fork(event, mayBeRead) {
      if (event.pid !== event.thread) {
        const life = lives.get(event.pid)
        if (life) life.threads += 1
        return null
      }
      if (event.parentPid === kernelThreadsParent) return null
      const state = mayBeRead ? states.readStat(event.pid) : null
      const startTicks = state?.startTicks ?? ticksAt(event.timestampNs)
      const sessionId = lives.get(event.parentPid)?.sessionId ?? state?.sessionId ?? 0
      begin(event.pid, { startTicks, parentPid: event.parentPid, sessionId, threads: 1 })
      return { pid: event.pid, startTicks }
    },
    exec(event) {
      const known = lives.get(event.pid)
      if (known && !known.ended) {
        // All other threads went with the old program, also the leader whose number the caller took over.
        known.threads = 1
        known.leaderStatus = null
        return { pid: event.pid, startTicks: known.startTicks }
      }
      const state = states.readStat(event.pid)
      const life = begin(
        event.pid,
        state ?? { startTicks: ticksAt(event.timestampNs), parentPid: 0, sessionId: 0, threads: 1 },
      )
      return { pid: event.pid, startTicks: life.startTicks }
    },
    exit(event) {
      const life = lives.get(event.pid)
      if (life === undefined || life.ended) return null
      life.threads -= 1
      if (event.thread === event.pid) {
        if (life.threads > 0 && livesOn(event.pid, life)) {
          life.leaderStatus = event.status
          return null
        }
        return end(event.pid, life, event.status)
      }
      // The last thread of a process whose leader went before decides the status (from Linux 6.0).
      return life.threads <= 0 && life.leaderStatus !== null ? end(event.pid, life, event.status) : null
    },
    beginSession(pid) {
      const life = lives.get(pid)
      if (life) life.sessionId = pid
    },
    sessionOf: (pid) => lives.get(pid)?.sessionId ?? 0,
    keyOf(pid) {
      const life = lives.get(pid)
      return life ? { pid, startTicks: life.startTicks } : null
    },
    parentOf(pid) {
      const parentPid = lives.get(pid)?.parentPid ?? 0
      return { pid: parentPid, startTicks: lives.get(parentPid)?.startTicks ?? 0 }
    },
    size: () => lives.size,
  }
}
