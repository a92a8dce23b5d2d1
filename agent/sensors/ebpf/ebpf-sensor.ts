/**
 * Processes and outbound TCP connections, told by Cordon's own kernel programs (`agent/native/bpf`). Nothing is
 * too short-lived to be seen: the kernel copies it as it happens, and this side fetches it in batches.
 */

import type { NativeAddon, ProgramsHandle } from '../../native/addon.ts'
import { drainEvery } from '../drain-timer.ts'
import type { ProcessKey, RecordSink, Sensor, SensorRecord } from '../records.ts'
import { type ConnectionOutcomes, createConnectionOutcomes } from './connection-outcomes.ts'
import { decodeRecords } from './record-decoder.ts'

const name = 'ebpf'
const drainBufferBytes = 256 * 1024
/** A buffer that had room for the longest record was not filled to the end. */
const recordBytesMax = 32_768
const ringBytesDefault = 4 * 1024 ** 2
const lossReportIntervalNs = 1e9
const countedKinds = ['exec', 'exit', 'fork', 'connect'] as const

export interface EbpfSensorOptions {
  readonly native: NativeAddon
  readonly drainIntervalMs?: number
  /** A power of two. The agent's resident memory grows by as much. */
  readonly ringBytes?: number
  /** Processes to leave out from the start, such as the agent itself. */
  readonly excluded?: readonly ProcessKey[]
  /** Wall clock in milliseconds. */
  readonly clock?: () => number
  /** CLOCK_MONOTONIC in nanoseconds, the clock of the kernel's records. */
  readonly monotonicNs?: () => number
}

export interface EbpfSensor extends Sensor {
  /** Leaves out what this process does until it exits; no more than 256 at a time. */
  excludeProcess(process: ProcessKey): void
  /**
   * Hands up now what happened so far: for a layer whose records are joined to processes, which would otherwise
   * meet the image that a process had before its exec. Does nothing while the sensor does not run.
   */
  drainNow(): void
}

export function createEbpfSensor(options: EbpfSensorOptions): EbpfSensor {
  const { native, drainIntervalMs = 40, ringBytes = ringBytesDefault, excluded = [] } = options
  const waiting: ProcessKey[] = [...excluded]
  let running: ProgramsHandle | undefined
  let drain: ReturnType<typeof createDrain> | undefined

  return {
    name,
    drainNow() {
      try {
        drain?.fetch()
      } catch {
        // The sensor's own clockwork meets the same failure, and ends by it.
      }
    },
    excludeProcess(process) {
      if (running === undefined) waiting.push(process)
      else native.bpfExclude(running, process.pid, process.startTicks)
    },
    async run(sink, signal, attached) {
      const handle = native.bpfOpen(ringBytes)
      running = handle
      try {
        for (const process of waiting.splice(0)) native.bpfExclude(handle, process.pid, process.startTicks)
        const started = createDrain(options, handle, sink)
        drain = started
        attached()
        await drainEvery(drainIntervalMs, signal, started.step)
        started.finish()
      } finally {
        running = undefined
        drain = undefined
        native.bpfClose(handle)
      }
    },
  }
}

function createDrain(options: EbpfSensorOptions, handle: ProgramsHandle, sink: RecordSink) {
  const { native, clock = Date.now, monotonicNs = readMonotonicNs, ringBytes = ringBytesDefault } = options
  const buffer = Buffer.allocUnsafeSlow(drainBufferBytes)
  const readLosses = createLossReader(native, handle)
  // One tick fetches no more than the ring held when it began: a storm does not keep the agent from the rest.
  const roundsMax = Math.ceil(ringBytes / (drainBufferBytes - recordBytesMax)) + 1
  let records: SensorRecord[] = []
  const add = (record: SensorRecord) => {
    records.push(record)
  }
  const connections: ConnectionOutcomes = createConnectionOutcomes({ add })

  const handUp = () => {
    if (records.length === 0) return
    const batch = records
    records = []
    sink(batch)
  }
  const fetch = () => {
    const nowNs = monotonicNs()
    const wallOffsetMs = clock() - nowNs / 1_000_000
    let found = false
    for (let round = 0; round < roundsMax; round++) {
      const length = native.bpfDrain(handle, buffer)
      if (length === 0) break
      found = true
      const decoded = decodeRecords(buffer, length, { wallOffsetMs, add, addConnection: connections.add })
      if (!decoded.whole)
        add({ kind: 'loss', timestampMs: clock(), source: `${name}:unreadable`, count: null })
      handUp()
      if (length < buffer.length - recordBytesMax) break
    }
    return { nowNs, found }
  }
  /** True when there was something to fetch. */
  const step = () => {
    const { nowNs, found } = fetch()
    connections.tellOverdue(nowNs)
    readLosses(nowNs, clock(), add)
    handUp()
    return found
  }
  return {
    fetch,
    step,
    finish() {
      step()
      connections.tellAll()
      readLosses(Number.POSITIVE_INFINITY, clock(), add)
      handUp()
    },
  }
}

/** Tells how much the kernel's counters of dropped records grew, at most once a second. */
function createLossReader(native: NativeAddon, handle: ProgramsHandle) {
  let told: readonly number[] = countedKinds.map(() => 0)
  let nextNs = 0
  return (nowNs: number, timestampMs: number, add: (record: SensorRecord) => void) => {
    if (nowNs < nextNs) return
    nextNs = nowNs + lossReportIntervalNs
    const counters = native.bpfCounters(handle)
    countedKinds.forEach((kind, slot) => {
      const count = (counters[slot] ?? 0) - (told[slot] ?? 0)
      if (count > 0) add({ kind: 'loss', timestampMs, source: `${name}:${kind}`, count })
    })
    told = counters
  }
}

function readMonotonicNs(): number {
  return Number(process.hrtime.bigint())
}
