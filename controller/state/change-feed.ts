/** Tells live views what changed. Callers announce after their commit; a listener that throws is dropped. */
import type { Change, ChangeFeed } from '../api/services.ts'

export interface ChangeAnnouncer extends ChangeFeed {
  announce(change: Change): void
}

export function createChangeFeed(): ChangeAnnouncer {
  const listeners = new Set<(change: Change) => void>()
  return {
    subscribe(listener, signal) {
      if (signal.aborted) return
      // A wrapper of its own, so that the same function may subscribe twice.
      const own = (change: Change) => listener(change)
      listeners.add(own)
      signal.addEventListener('abort', () => listeners.delete(own), { once: true })
    },
    announce(change) {
      for (const listener of listeners) {
        try {
          listener(change)
        } catch {
          // Listeners must not throw; one that does must not keep the others from hearing.
          listeners.delete(listener)
        }
      }
    },
  }
}
