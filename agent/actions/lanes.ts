/**
 * Decides which command runs when: exclusive ones of one target after each other, others beside them, reads
 * on places of their own so that a long scan never holds back a containment.
 */
export interface Lane {
  readonly key: string
  readonly access: 'exclusive' | 'shared'
}

export interface LanesOptions {
  readonly exclusiveMax: number
  readonly sharedMax: number
}

export interface Lanes {
  /** `work` never rejects. The caller bounds how many wait; nothing is taken after `close`. */
  add(lane: Lane, work: () => Promise<void>): void
  /** How many have not begun. */
  waiting(): number
  /** Nothing starts any more; resolves when all that runs has ended. */
  close(): Promise<void>
  /** Resolves when nothing runs or waits. */
  idle(): Promise<void>
}

interface Entry extends Lane {
  readonly work: () => Promise<void>
}

export function createLanes(options: LanesOptions): Lanes {
  const waiting: Entry[] = []
  const running = new Map<Entry, Promise<void>>()
  let closed = false

  function mayStart(entry: Entry): boolean {
    const sameAccess = [...running.keys()].filter(({ access }) => access === entry.access)
    if (entry.access === 'shared') return sameAccess.length < options.sharedMax
    return sameAccess.length < options.exclusiveMax && !sameAccess.some(({ key }) => key === entry.key)
  }

  function startWhatMay(): void {
    for (let index = 0; !closed && index < waiting.length; ) {
      const entry = waiting[index]
      if (!entry || !mayStart(entry)) {
        index += 1
        continue
      }
      waiting.splice(index, 1)
      const work = entry.work().finally(() => {
        running.delete(entry)
        startWhatMay()
      })
      running.set(entry, work)
    }
  }

  return {
    add(lane, work) {
      if (closed) return
      waiting.push({ ...lane, work })
      startWhatMay()
    },
    waiting: () => waiting.length,
    async close() {
      closed = true
      waiting.length = 0
      await Promise.all(running.values())
    },
    async idle() {
      while (running.size > 0) await Promise.all(running.values())
    },
  }
}
