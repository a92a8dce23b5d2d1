/** Who the acting processes are, from the records themselves: what lists ask for, before the events are built. */
import type { ExecRecord, ForkRecord, KernelText } from '../records.ts'
import type { ProcessFacts } from './telemetry-matcher.ts'

interface Known {
  readonly executable: KernelText | null
  readonly parentPid: number
  readonly userId: number | null
}

export interface ProcessFactsTable {
  fork(record: ForkRecord): void
  exec(record: ExecRecord): void
  /** Null: nobody knows. A process that ended stays known for a while, because its file events come later. */
  find(pid: number): ProcessFacts | null
}

const processesMax = 32_768

/** `lookUp` knows processes that were there before. */
export function createProcessFacts(lookUp: (pid: number) => ProcessFacts | null): ProcessFactsTable {
  const known = new Map<number, Known>()

  function set(pid: number, facts: Known): void {
    known.delete(pid)
    if (known.size >= processesMax) {
      // Many at once: a map that loses its first entry again and again looks past ever more empty ones.
      for (const oldest of known.keys()) {
        known.delete(oldest)
        if (known.size <= processesMax / 2) break
      }
    }
    known.set(pid, facts)
  }

  return {
    fork({ process, parent }) {
      // Until it runs another program it is what its parent is.
      const of = known.get(parent.pid) ?? lookUp(parent.pid)
      set(process.pid, {
        executable: of?.executable ?? null,
        parentPid: parent.pid,
        userId: of?.userId ?? null,
      })
    },
    exec({ process, parent, executable, userId }) {
      set(process.pid, { executable, parentPid: parent.pid, userId })
    },
    find(pid) {
      const facts = known.get(pid)
      if (facts === undefined || facts.userId === null) return lookUp(pid)
      const parent = known.get(facts.parentPid) ?? lookUp(facts.parentPid)
      return {
        executable: facts.executable,
        parentExecutable: parent?.executable ?? null,
        userId: facts.userId,
      }
    },
  }
}
