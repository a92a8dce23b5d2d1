/**
 * Files that are created, written, renamed and deleted, on whole file systems, with the process that did it
 * (fanotify(7)). It only listens: no program waits for the agent.
 */
import type { GroupHandle, NativeAddon } from '../../native/addon.ts'
import { drainEvery } from '../drain-timer.ts'
import { createElapsed } from '../elapsed.ts'
import type { FileRecord, RecordSink, Sensor, SensorRecord } from '../records.ts'
import { addDiscarded, countsByAction, discardedBytesMax, noFileCounts } from './discarded-events.ts'
import { decodeFileEvents } from './file-event-decoder.ts'
import { createMarks, type RefusedMount } from './marks.ts'
import type { MountNamespaces } from './mount-namespaces.ts'

export type { RefusedMount } from './marks.ts'

const name = 'fanotify'
const drainBufferBytes = 256 * 1024
/** The longest packed event: below this much room, the addon waits for the next call. */
const eventBytesMax = 16_384
/** Bounds one tick: what is left stays in the kernel's queue for the next one. */
const roundsMax = 32
const defaultWaitingEventsMax = 200_000
/** At the end all that may wait is fetched, however long that takes; what is made meanwhile is bounded by this. */
const finishCallsMax = 8
const reportIntervalMs = 1_000
/** However many hints come: marking all again takes a few milliseconds. */
const hintedRescanPauseMs = 100

export interface FanotifySensorOptions {
  readonly native: NativeAddon
  /** Asked at the start and at each rescan, because file systems come and go. */
  readonly listMountPoints: () => readonly string[]
  /** Of other processes, such as containers; without it only the agent's own namespace is watched. */
  readonly namespaces?: MountNamespaces
  /**
   * Events that may wait in the kernel's queue, at about 150 bytes of the agent's memory each. What is beyond is
   * discarded, oldest first, and counted by kind. More than a second of 100,000 events each must fit.
   */
  readonly waitingEventsMax?: number
  readonly drainIntervalMs?: number
  readonly rescanIntervalMs?: number
  /** Processes whose file events are left out, such as the agent's own. It may change at any time. */
  readonly excludedPids?: { has(pid: number): boolean }
  /**
   * Called when there are events, before they are handed up: what the process layer has seen by then happened
   * before them, and must be known when they are joined to their processes.
   */
  readonly beforeHandingUp?: () => void
  /** Wall clock in milliseconds. */
  readonly clock?: () => number
}

export interface FanotifySensor extends Sensor {
  readonly watchedMountPoints: () => readonly string[]
  /** File systems that do not take a mark, such as some overlay file systems: nothing is seen there. */
  readonly refusedMounts: () => readonly RefusedMount[]
  /**
   * Something was mounted or a namespace changed (by this process, when it is known): file systems are listed
   * anew now, and not only when it is time. It may be called at any rate.
   */
  readonly rescan: (pid?: number) => void
}

/** The marks stand by the time that `run` returns its promise, which rejects when there can be no group. */
export function createFanotifySensor(options: FanotifySensorOptions): FanotifySensor {
  const {
    native,
    drainIntervalMs = 40,
    rescanIntervalMs = 5_000,
    clock = Date.now,
    listMountPoints,
  } = options
  const marks = createMarks(native)
  const elapsed = createElapsed(clock)
  const { namespaces } = options
  let open: GroupHandle | null = null
  let lastRescanMs = Number.NEGATIVE_INFINITY
  let lastListedMs = Number.NEGATIVE_INFINITY
  let isHinted = false

  function rescanWhenDue() {
    const nowMs = elapsed()
    const isDue = nowMs - lastListedMs >= rescanIntervalMs
    if (open === null || !(isDue || (isHinted && nowMs - lastRescanMs >= hintedRescanPauseMs))) return
    isHinted = false
    lastRescanMs = nowMs
    if (isDue) lastListedMs = nowMs
    // Listing all processes is for when it is time: hints may come many times a second.
    namespaces?.scan(isDue ? 'all' : 'noticed')
    const own = listMountPoints().map((mountPoint) => ({ mountPoint, root: '/' }))
    marks.update(open, [...own, ...(namespaces?.mounts() ?? [])])
  }

  return {
    name,
    watchedMountPoints: marks.watched,
    refusedMounts: marks.refused,
    rescan(pid) {
      if (pid !== undefined) namespaces?.noticeNamespace(pid)
      isHinted = true
      rescanWhenDue()
    },
    async run(sink, signal, attached) {
      const handle = native.fanotifyOpen()
      open = handle
      try {
        const drain = createDrain(options, handle, sink)
        lastListedMs = Number.NEGATIVE_INFINITY
        rescanWhenDue()
        attached()
        const step = () => {
          rescanWhenDue()
          return drain.step()
        }
        await drainEvery(drainIntervalMs, signal, step, {
          start: (onRing) => native.fanotifyBell(handle, onRing),
          arm: () => native.fanotifyArmBell(handle),
        })
        drain.finish()
      } finally {
        open = null
        marks.clear()
        native.fanotifyClose(handle)
      }
    },
  }
}

function createDrain(options: FanotifySensorOptions, handle: GroupHandle, sink: RecordSink) {
  const { native, clock = Date.now, excludedPids, beforeHandingUp = () => undefined } = options
  const { waitingEventsMax = defaultWaitingEventsMax } = options
  const elapsed = createElapsed(clock)
  const translate = options.namespaces?.translate ?? (() => null)
  const buffer = Buffer.allocUnsafeSlow(drainBufferBytes)
  const discardedBuffer = Buffer.alloc(discardedBytesMax)
  const isExcluded = (pid: number) => excludedPids?.has(pid) ?? false
  let records: SensorRecord[] = []
  let withoutPath = noFileCounts()
  let discarded = noFileCounts()
  let lastReportMs = Number.NEGATIVE_INFINITY
  /** More may wait than was fetched. At first, so that the addon learns the bound. */
  let isBehind = true
  const add = (record: FileRecord) => {
    const location = translate(record.path)
    records.push(location === null ? record : { ...record, containerPath: location.containerPath })
  }
  const handUp = () => {
    if (records.length === 0) return
    const batch = records
    records = []
    sink(batch)
  }
  const report = (timestampMs: number) => {
    const length = native.fanotifyDiscarded(handle, discardedBuffer)
    addDiscarded(discardedBuffer, length, isExcluded, discarded)
    for (const [source, counts] of [
      [name, countsByAction(discarded)],
      [`${name}:folder-gone`, countsByAction(withoutPath)],
    ] as const) {
      if (counts !== null) records.push({ kind: 'loss', timestampMs, source, ...counts })
    }
    withoutPath = noFileCounts()
    discarded = noFileCounts()
  }
  /** True when there was something to fetch. */
  const step = () => {
    const timestampMs = clock()
    let found = false
    // Counting what waits is dear, so it is done when the last call did not get through it. While this thread
    // stands still, the addon's own sees to the bound.
    if (isBehind) native.fanotifyTrim(handle, waitingEventsMax)
    isBehind = true
    for (let round = 0; round < roundsMax; round++) {
      const length = native.fanotifyDrain(handle, buffer)
      if (length === 0) {
        isBehind = false
        break
      }
      found = true
      beforeHandingUp()
      const summary = decodeFileEvents(buffer, length, { timestampMs, isExcluded, add, withoutPath })
      if (summary.overflowed) records.push({ kind: 'loss', timestampMs, source: name, count: null })
      if (!summary.whole)
        records.push({ kind: 'loss', timestampMs, source: `${name}:unreadable`, count: null })
      handUp()
      if (length < buffer.length - eventBytesMax) {
        isBehind = false
        break
      }
    }
    const nowMs = elapsed()
    if (nowMs - lastReportMs >= reportIntervalMs) {
      lastReportMs = nowMs
      report(timestampMs)
    }
    handUp()
    return found
  }
  return {
    step,
    /** Fetches what waits, and counts what comes in faster than that. */
    finish() {
      isBehind = true
      for (let call = 0; call < finishCallsMax && step(); call++);
      native.fanotifyTrim(handle, 0)
      step()
      report(clock())
      handUp()
    },
  }
}
