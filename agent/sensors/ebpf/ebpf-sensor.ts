/**
 * What processes are and do, told by Cordon's own kernel programs (`agent/native/bpf`). Nothing is too short-lived
 * to be seen: the kernel copies it as it happens, and this side fetches it in batches.
 */

import type { KernelFeatures, NativeAddon, ProgramsHandle } from '../../native/addon.ts'
import { drainEvery } from '../drain-timer.ts'
import type { PamLibrary } from '../logons/pam-library.ts'
import type { PamWatch } from '../logons/pam-watch.ts'
import type { ProcessKey, RecordSink, Sensor, SensorRecord } from '../records.ts'
import { type ConnectionOutcomes, createConnectionOutcomes } from './connection-outcomes.ts'
import { createLossReader } from './losses.ts'
import { decodeRecords } from './record-decoder.ts'
import { createScripts } from './scripts.ts'

const drainBufferBytes = 256 * 1024
/** A buffer that had room for the longest record was not filled to the end. */
const recordBytesMax = 32_768
const ringBytesDefault = 4 * 1024 ** 2
/** Where cgroup v2 is mounted nearly everywhere. */
const cgroupPathDefault = '/sys/fs/cgroup'

export interface EbpfSensorOptions {
  readonly native: NativeAddon
  readonly drainIntervalMs?: number
  /** A power of two. The agent's resident memory grows by as much. */
  readonly ringBytes?: number
  /** Root of the hierarchy of cgroup v2, which packets are watched in. */
  readonly cgroupPath?: string
  /** Loads what any kernel takes: processes and outbound connections. */
  readonly coreOnly?: boolean
  /** Inodes of the host's namespaces, by the names of /proc/PID/ns. */
  readonly hostNamespaces?: Readonly<Record<string, number>>
  /** The host's pid of a process that the caller sees as `pid`; null when it cannot be found. */
  readonly translatePid?: (callerPid: number, pid: number) => number | null
  /** Number of the kernel's event source for probes in programs; null: it has none. */
  readonly uprobeType?: number | null
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
  /** Probes the libraries of PAM that this finds, as long as the sensor runs. To be called before that. */
  watchLogons(libraries: PamWatch): void
  /** What is in force, as long as the sensor runs. */
  features(): KernelFeatures | null
}

export function createEbpfSensor(options: EbpfSensorOptions): EbpfSensor {
  const { native, drainIntervalMs = 40, ringBytes = ringBytesDefault, excluded = [] } = options
  const waiting: ProcessKey[] = [...excluded]
  const name = layerName(options)
  let running: ProgramsHandle | undefined
  let features: KernelFeatures | null = null
  let pam: PamWatch | null = null
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
    watchLogons(libraries) {
      pam = libraries
    },
    features: () => features,
    excludeProcess(process) {
      if (running === undefined) waiting.push(process)
      else native.bpfExclude(running, process.pid, process.startTicks)
    },
    async run(sink, signal, attached) {
      const handle = native.bpfOpen(
        ringBytes,
        options.cgroupPath ?? cgroupPathDefault,
        options.coreOnly ?? false,
      )
      running = handle
      features = native.bpfFeatures(handle)
      try {
        for (const process of waiting.splice(0)) native.bpfExclude(handle, process.pid, process.startTicks)
        const started = createDrain(options, handle, sink)
        drain = started
        pam?.attach((library) => probeLibrary(options, handle, library))
        attached()
        const step = () => {
          pam?.tick()
          return started.step()
        }
        await drainEvery(drainIntervalMs, signal, step, {
          start: (onRing) => native.bpfBell(handle, onRing),
          arm: () => native.bpfArmBell(handle),
        })
        started.finish()
      } finally {
        running = undefined
        features = null
        pam?.detach()
        drain = undefined
        native.bpfClose(handle)
      }
    },
  }
}

function layerName({ coreOnly = false }: EbpfSensorOptions): string {
  return coreOnly ? 'ebpf-core' : 'ebpf'
}

/** By `enum pam_function` of records.h. */
const pamFunctions = { pam_authenticate: 1, pam_open_session: 2, pam_close_session: 3 } as const

function probeLibrary(options: EbpfSensorOptions, handle: ProgramsHandle, library: PamLibrary): void {
  const { native, uprobeType = null, coreOnly = false } = options
  if (coreOnly || uprobeType === null) throw new Error('the kernel has no probes in programs')
  for (const [name, code] of Object.entries(pamFunctions)) {
    const offset = library.symbols[name]
    if (offset !== undefined) native.bpfProbePam(handle, uprobeType, library.path, offset, code)
  }
}

function createDrain(options: EbpfSensorOptions, handle: ProgramsHandle, sink: RecordSink) {
  const { native, clock = Date.now, monotonicNs = readMonotonicNs, ringBytes = ringBytesDefault } = options
  const name = layerName(options)
  const buffer = Buffer.allocUnsafeSlow(drainBufferBytes)
  const readLosses = createLossReader(name, native, handle)
  // One tick fetches no more than the ring held when it began: a storm does not keep the agent from the rest.
  const roundsMax = Math.ceil(ringBytes / (drainBufferBytes - recordBytesMax)) + 1
  let records: SensorRecord[] = []
  const addRecord = (record: SensorRecord) => {
    records.push(record)
  }
  const scripts = createScripts(addRecord)
  const add = (record: SensorRecord) => {
    const isImage = record.kind === 'exec' || record.kind === 'exit'
    if (isImage) scripts.finish(record.process)
    records.push(record)
    if (record.kind === 'exec') scripts.exec(record)
    else if (record.kind === 'fork') scripts.fork(record)
    else if (record.kind === 'exit') scripts.exit(record)
  }
  const target = {
    hostNamespaces: options.hostNamespaces ?? {},
    add,
    addActivity: addRecord,
    addScript: scripts.read,
    translatePid: options.translatePid ?? (() => null),
  }
  const connections: ConnectionOutcomes = createConnectionOutcomes({ add: addRecord })

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
      const decoded = decodeRecords(buffer, length, {
        ...target,
        wallOffsetMs,
        addConnection: connections.add,
      })
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
    scripts.tellQuiet(clock())
    readLosses(nowNs, clock(), addRecord)
    handUp()
    return found
  }
  return {
    fetch,
    step,
    finish() {
      step()
      connections.tellAll()
      scripts.tellAll()
      readLosses(Number.POSITIVE_INFINITY, clock(), addRecord)
      handUp()
    },
  }
}

function readMonotonicNs(): number {
  return Number(process.hrtime.bigint())
}
