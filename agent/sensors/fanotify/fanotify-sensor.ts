/**
 * Files that are created, written, renamed and deleted, on whole file systems, with the process that did it
 * (fanotify(7)). It only listens: no program waits for the agent.
 */
import type { GroupHandle, NativeAddon } from '../../native/addon.ts'
import { drainEvery } from '../drain-timer.ts'
import type { RecordSink, Sensor, SensorRecord } from '../records.ts'
import { decodeFileEvents } from './file-event-decoder.ts'

const name = 'fanotify'
const drainBufferBytes = 256 * 1024
/** The longest packed event: below this much room, the addon waits for the next call. */
const eventBytesMax = 16_384
/** Bounds one tick: what is left stays in the kernel's queue for the next one. */
const roundsMax = 32
const reportIntervalMs = 1_000

export interface FanotifySensorOptions {
  readonly native: NativeAddon
  /** Asked at the start and at each rescan, because file systems come and go. */
  readonly listMountPoints: () => readonly string[]
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

export interface RefusedMount {
  readonly mountPoint: string
  /** What the kernel said, such as `fanotify_mark: Operation not supported (EOPNOTSUPP)`. */
  readonly reason: string
}

export interface FanotifySensor extends Sensor {
  readonly watchedMountPoints: () => readonly string[]
  /** File systems that do not take a mark, such as some overlay file systems: nothing is seen there. */
  readonly refusedMounts: () => readonly RefusedMount[]
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

  return {
    name,
    watchedMountPoints: marks.watched,
    refusedMounts: marks.refused,
    async run(sink, signal, attached) {
      const handle = native.fanotifyOpen()
      try {
        const drain = createDrain(options, handle, sink)
        let nextRescanMs = Number.NEGATIVE_INFINITY
        const rescanWhenDue = () => {
          if (clock() < nextRescanMs) return
          nextRescanMs = clock() + rescanIntervalMs
          marks.update(handle, listMountPoints())
        }
        rescanWhenDue()
        attached()
        await drainEvery(drainIntervalMs, signal, () => {
          rescanWhenDue()
          return drain.step()
        })
        drain.finish()
      } finally {
        marks.clear()
        native.fanotifyClose(handle)
      }
    },
  }
}

function createMarks(native: NativeAddon) {
  const watched = new Set<string>()
  const refused = new Map<string, string>()

  const mark = (handle: GroupHandle, mountPoint: string) => {
    try {
      native.fanotifyMark(handle, mountPoint)
      watched.add(mountPoint)
      refused.delete(mountPoint)
    } catch (error) {
      watched.delete(mountPoint)
      refused.set(mountPoint, error instanceof Error ? error.message : String(error))
    }
  }
  return {
    watched: () => [...watched],
    refused: () => [...refused].map(([mountPoint, reason]) => ({ mountPoint, reason })),
    /** Marks all again: where another file system is mounted by now, the mark goes to that one. */
    update(handle: GroupHandle, mountPoints: readonly string[]) {
      const present = new Set(mountPoints)
      for (const mountPoint of [...watched, ...refused.keys()]) {
        if (present.has(mountPoint)) continue
        native.fanotifyForget(handle, mountPoint)
        watched.delete(mountPoint)
        refused.delete(mountPoint)
      }
      for (const mountPoint of mountPoints) mark(handle, mountPoint)
    },
    clear() {
      watched.clear()
      refused.clear()
    },
  }
}

function createDrain(options: FanotifySensorOptions, handle: GroupHandle, sink: RecordSink) {
  const { native, clock = Date.now, excludedPids, beforeHandingUp = () => undefined } = options
  const buffer = Buffer.allocUnsafeSlow(drainBufferBytes)
  const isExcluded = (pid: number) => excludedPids?.has(pid) ?? false
  let records: SensorRecord[] = []
  let withoutPath = 0
  let nextReportMs = 0
  const add = (record: SensorRecord) => {
    records.push(record)
  }
  const handUp = () => {
    if (records.length === 0) return
    const batch = records
    records = []
    sink(batch)
  }
  const reportWithoutPath = (timestampMs: number) => {
    if (withoutPath === 0) return
    add({ kind: 'loss', timestampMs, source: `${name}:folder-gone`, count: withoutPath })
    withoutPath = 0
  }
  /** True when there was something to fetch. */
  const step = () => {
    const timestampMs = clock()
    let found = false
    for (let round = 0; round < roundsMax; round++) {
      const length = native.fanotifyDrain(handle, buffer)
      if (length === 0) break
      found = true
      beforeHandingUp()
      const summary = decodeFileEvents(buffer, length, { timestampMs, isExcluded, add })
      withoutPath += summary.withoutPath
      if (summary.overflowed) add({ kind: 'loss', timestampMs, source: name, count: null })
      if (!summary.whole) add({ kind: 'loss', timestampMs, source: `${name}:unreadable`, count: null })
      handUp()
      if (length < buffer.length - eventBytesMax) break
    }
    if (timestampMs >= nextReportMs) {
      nextReportMs = timestampMs + reportIntervalMs
      reportWithoutPath(timestampMs)
    }
    handUp()
    return found
  }
  return {
    step,
    finish() {
      step()
      reportWithoutPath(clock())
      handUp()
    },
  }
}
