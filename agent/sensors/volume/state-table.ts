/** The state of each process, bounded in number: who told nothing for longest makes room. */
import { createProcessState, type ProcessState } from './process-budgets.ts'

export interface StateTable {
  get(pid: number, nowMs: number): ProcessState
  find(pid: number): ProcessState | undefined
  remove(state: ProcessState): void
  clear(): void
  /** The lists changed: what they say of each process is looked up again. */
  forgetRules(): void
}

/** One that told something this short a time ago is passed over, as long as another can go. */
const recentMs = 1_000

/** `release` gets each state that goes. */
export function createStateTable(processesMax: number, release: (state: ProcessState) => void): StateTable {
  const states = new Map<number, ProcessState>()

  function remove(state: ProcessState): void {
    states.delete(state.pid)
    release(state)
  }

  /** An eighth at once: a map that loses its first entry again and again looks past ever more empty ones. */
  function makeRoom(nowMs: number): void {
    const leftMax = processesMax - Math.ceil(processesMax / 8)
    const passedOverMax = Math.ceil(processesMax / 2)
    let passedOver = 0
    for (const state of states.values()) {
      if (states.size <= leftMax) return
      if (nowMs - state.usedMs < recentMs && passedOver < passedOverMax) {
        // To the end of the map: its turn comes again.
        states.delete(state.pid)
        states.set(state.pid, state)
        passedOver += 1
      } else {
        remove(state)
      }
    }
  }

  return {
    get(pid, nowMs) {
      const known = states.get(pid)
      if (known !== undefined) {
        known.usedMs = nowMs
        return known
      }
      if (states.size >= processesMax) makeRoom(nowMs)
      const state = createProcessState(pid, nowMs)
      states.set(pid, state)
      return state
    },
    find: (pid) => states.get(pid),
    remove,
    clear() {
      for (const state of [...states.values()]) remove(state)
    },
    forgetRules() {
      for (const state of states.values()) state.rules = null
    },
  }
}
