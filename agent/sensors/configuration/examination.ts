/**
 * Looks at files that changed, and tells what that means: at once where others depend on it, else as soon as the
 * file has come to rest. What is seen is kept across restarts.
 */

import { createElapsed } from '../elapsed.ts'
import type { ExactPath } from '../exact-path.ts'
import type { Attribution, ConfigurationChange, ConfigurationRecord, RecordSink } from '../records.ts'
import type { BaselineStore } from './baseline-store.ts'
import type { ConfigurationRoot, Look, WatchedFile } from './configuration-root.ts'
import { createPendingLooks, type PendingLook } from './pending-looks.ts'
import type { FileState } from './state.ts'

/** Why a file is looked at. */
export interface Cause {
  readonly timestampMs: number
  readonly pid: number | null
  readonly attribution?: Attribution
}

export interface LookedAt {
  readonly root: ConfigurationRoot
  readonly file: WatchedFile
}

export interface ExaminationOptions {
  readonly clock: () => number
  readonly sink: RecordSink
  /** Keeps what is seen of `host`. */
  readonly store: BaselineStore | null
  readonly host: ConfigurationRoot
  /** False once a root is gone. */
  readonly isWatched: (root: ConfigurationRoot) => boolean
  /** There was no room: everything is to be looked at again. */
  readonly overflowed: () => void
  readonly limits: {
    readonly pendingMax: number
    readonly intervalMs: number
    readonly settleMs: number
  }
}

export interface Examination {
  enqueue(at: LookedAt, cause: Cause, delayMs: number): void
  /** Looks now; what is seen is told. */
  lookNow(at: LookedAt, cause: Cause): void
  /** Looks now; what is seen is kept without a word. */
  learn(at: LookedAt): void
  /** Changes that another one followed before the file was looked at. */
  coalesced(): number
  /** Looks at all that is pending, and keeps it. */
  finish(): void
}

export const PASSWD: WatchedFile = { path: '/etc/passwd', topic: { kind: 'accounts', file: 'passwd' } }
const SAVE_INTERVAL_MS = 2_000
/** Files that are looked at before others have their turn. */
const LOOKS_PER_TICK = 64

export function createExamination(options: ExaminationOptions): Examination {
  const { limits, host } = options
  const elapsed = createElapsed(options.clock)
  const pending = createPendingLooks<LookedAt, Cause>({
    restMs: (at) => (decidesPlaces(at.file) ? limits.intervalMs / 5 : limits.intervalMs),
    joined: lastWriter,
    filesMax: limits.pendingMax,
  })
  const saving = createSaving(options.store)
  let timer: NodeJS.Timeout | undefined
  let timerDueMs = Number.POSITIVE_INFINITY
  let coalesced = 0

  function apply(at: LookedAt, seen: Look, cause: Cause): void {
    const records = at.root.apply(at.file, seen).map((change) => toRecord(change, cause))
    if (records.length > 0) options.sink(records)
    noteChanged(at)
    if (decidesPlaces(at.file)) {
      for (const home of at.root.refreshPlaces()) {
        for (const file of at.root.filesOfHome(home))
          enqueue({ root: at.root, file }, cause, limits.intervalMs)
      }
      for (const path of at.root.dropForgotten()) if (at.root === host) saving.note(path, null)
    }
    for (const file of at.root.takeDiscovered()) enqueue({ root: at.root, file }, cause, 0)
  }

  function noteChanged({ root, file }: LookedAt): void {
    if (root !== host) return
    saving.note(file.path, host.kept(file.path) ?? null)
    wake(elapsed() + SAVE_INTERVAL_MS)
  }

  function look(key: string, due: PendingLook<LookedAt, Cause>, isLast: boolean): void {
    const { root, file } = due.file
    if (!options.isWatched(root)) return
    const seen = root.look(file)
    const isGone = seen.before !== null && (seen.after === null || isEmpty(seen.after))
    if (isGone && !isLast && (due.goneSinceMs === null || elapsed() - due.goneSinceMs < limits.settleMs)) {
      pending.lookAgain(key, due, elapsed(), limits.settleMs)
      return
    }
    if (file.topic.kind === 'accounts' && file.topic.file !== 'passwd') lookAtPasswd(root, due.cause)
    coalesced += due.count - 1
    apply(due.file, seen, due.cause)
  }

  /** It says whether the account of an entry came or went with it. */
  function lookAtPasswd(root: ConfigurationRoot, cause: Cause): void {
    if (root.kept(PASSWD.path) === undefined) return
    const seen = root.look(PASSWD)
    if (seen.after !== null && !isEmpty(seen.after)) apply({ root, file: PASSWD }, seen, cause)
  }

  function enqueue(at: LookedAt, cause: Cause, delayMs: number): void {
    const key = `${at.root.prefix}\0${at.file.path}`
    const nowMs = elapsed()
    if (!pending.add(key, at, cause, nowMs, delayMs)) {
      options.overflowed()
      return
    }
    // The records that follow can be judged only by what these files say.
    const due = decidesPlaces(at.file) ? pending.takeOne(key, nowMs) : null
    if (due !== null) look(key, due, false)
    wake(nowMs + delayMs)
  }

  function wake(atMs: number): void {
    if (timer !== undefined && timerDueMs <= atMs) return
    clearTimeout(timer)
    timerDueMs = atMs
    timer = setTimeout(tick, Math.max(0, atMs - elapsed()))
  }

  function tick(): void {
    timer = undefined
    for (const { key, look: due } of pending.take(elapsed(), LOOKS_PER_TICK)) look(key, due, false)
    const saveMs = saving.saveWhenDue(elapsed())
    const nextMs = Math.min(pending.nextMs() ?? Number.POSITIVE_INFINITY, saveMs)
    if (nextMs !== Number.POSITIVE_INFINITY) wake(nextMs)
  }

  return {
    enqueue,
    coalesced: () => coalesced,
    lookNow: (at, cause) => apply(at, at.root.look(at.file), cause),
    learn(at) {
      at.root.keep(at.file.path, at.root.look(at.file).after)
      noteChanged(at)
    },
    finish() {
      for (const { key, look: due } of pending.take(Number.POSITIVE_INFINITY, limits.pendingMax)) {
        look(key, due, true)
      }
      saving.save()
      clearTimeout(timer)
      timer = undefined
    },
  }
}

/** Gathers what changed, so that a burst is one transaction. */
function createSaving(store: BaselineStore | null) {
  const unsaved = new Map<ExactPath, FileState | null>()
  let nextMs = 0
  const save = () => {
    if (unsaved.size > 0) store?.save(unsaved)
    unsaved.clear()
  }
  return {
    note(path: ExactPath, state: FileState | null) {
      if (store !== null) unsaved.set(path, state)
    },
    save,
    /** When it is due next; never, when there is nothing to save. */
    saveWhenDue(nowMs: number): number {
      if (unsaved.size === 0) return Number.POSITIVE_INFINITY
      if (nowMs < nextMs) return nextMs
      save()
      nextMs = nowMs + SAVE_INTERVAL_MS
      return Number.POSITIVE_INFINITY
    },
  }
}

function toRecord(change: ConfigurationChange, cause: Cause): ConfigurationRecord {
  return {
    kind: 'configuration',
    timestampMs: cause.timestampMs,
    process: cause.pid === null ? null : { pid: cause.pid, startTicks: null },
    ...(cause.attribution === undefined ? {} : { attribution: cause.attribution }),
    change,
  }
}

/** Who wrote between two looks did part of what is seen; which part cannot be told. */
function lastWriter(earlier: Cause, later: Cause): Cause {
  const { timestampMs, pid } = later
  const isAlone = pid === null || (earlier.pid === pid && earlier.attribution !== 'last-writer')
  return isAlone ? later : { timestampMs, pid, attribution: 'last-writer' }
}

/** passwd says where homes are, sshd's configuration where keys are. */
function decidesPlaces({ topic, path }: WatchedFile): boolean {
  return (topic.kind === 'accounts' && topic.file === 'passwd') || path.startsWith('/etc/ssh/sshd_config')
}

function isEmpty(state: FileState): boolean {
  switch (state.kind) {
    case 'text':
      return state.digest === 'empty'
    case 'accounts':
      return state.entries.size === 0
    case 'keys':
      return state.keys.size === 0
  }
}
