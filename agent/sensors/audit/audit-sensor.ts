/**
 * Programs, connections and what else the kernel's audit tells, with the forks and exits of the process events
 * connector: for kernels that take no eBPF programs.
 *
 * Audit is the host's, so all that is changed in it is put back at the end (`state.ts`). What it cannot tell:
 * the content of scripts, DNS, libraries, opened devices, who sent how much; and programs that ran before audit
 * was switched on for the first time since boot are seen only by the process events.
 */
import { runEvery, runTogether } from '../../../shared/node/loop.ts'
import { drainEvery } from '../drain-timer.ts'
import {
  type Connector,
  type ConnectorOptions,
  type ExecObservation,
  openConnector,
} from '../proc-connector/connector.ts'
import type { RecordSink, Sensor, SensorRecord } from '../records.ts'
import { type AuditEvent, createAssembly } from './assembly.ts'
import { type AuditControl, openAuditControl } from './control.ts'
import { type ConfigurationChange, createEventRecords } from './event-records.ts'
import { createOrdering } from './ordering.ts'
import { createAuditSettings } from './state.ts'
import { type AuditStream, createAuditStream } from './stream.ts'
import { createWatch } from './watch.ts'

const name = 'audit'
const drainIntervalMsDefault = 40
const watchIntervalMs = 1_000
/** How long forks and exits wait for audit, when that is not behind. */
const settleMs = 50
/** Bounds one tick: the rest stays in the kernel's queue. */
const roundsMax = 32
const lastLooksMax = 50
const lastLookPauseMs = 10

export interface AuditSensorOptions extends ConnectorOptions {
  /** Processes that are left out, such as the agent's own. It may change at any time. */
  readonly excludedPids?: { has(pid: number): boolean }
  /** Processes that signals are told of: the agent's own, first the most important. */
  readonly protectedPids?: () => readonly number[]
  /** Where the settings of audit as they were found are kept, on a file system that a boot empties, as /run is. */
  readonly statePath?: string
  readonly drainIntervalMs?: number
}

export interface AuditSensor extends Sensor {
  /** Hands up now what happened so far. Does nothing while the sensor does not run. */
  drainNow(): void
}

export function createAuditSensor(options: AuditSensorOptions): AuditSensor {
  const { native, drainIntervalMs = drainIntervalMsDefault, protectedPids = () => [process.pid] } = options
  let running: ReturnType<typeof createDrain> | undefined

  return {
    name,
    drainNow() {
      try {
        running?.step(true)
      } catch {
        // The sensor's own clockwork meets the same failure, and ends by it.
      }
    },
    async run(sink, signal, attached) {
      const failures: string[] = []
      await observe(sink, signal, attached, failures)
      if (failures.length > 0) throw new Error(`audit was not put back as it was: ${failures.join('; ')}`)
    },
  }

  async function observe(
    sink: RecordSink,
    signal: AbortSignal,
    attached: () => void,
    failures: string[],
  ): Promise<void> {
    await using stack = new AsyncDisposableStack()
    // All steps are tried, whichever fails.
    const atEnd = (step: () => unknown) =>
      stack.defer(async () => {
        try {
          await step()
        } catch (error) {
          failures.push(error instanceof Error ? error.message : String(error))
        }
      })
    const control = openAuditControl(native)
    atEnd(control.close)
    const connector = openConnector(options)
    atEnd(connector.close)
    const stream = createAuditStream(native, process.pid)
    // From here, the end goes backwards: the daemon leaves only when nothing is left to be sent to it.
    atEnd(stream.close)
    const settings = createAuditSettings(control, options.statePath)
    const drain = createDrain(options, connector, stream, sink)
    const watch = createWatch({
      control,
      settings,
      stream,
      protectedPids,
      add: drain.add,
      clock: drain.clock,
    })
    atEnd(settings.restore)
    atEnd(drain.finish)
    atEnd(() => drainRest(control, drain))
    atEnd(settings.deleteRules)
    await settings.begin()
    stream.attach((await control.status()).pid === 0)
    await settings.addRules(protectedPids())
    await watch.begin()
    drain.tellChangesTo(watch.configurationChanged)
    running = drain
    atEnd(() => {
      running = undefined
      drain.tellChangesTo(() => undefined)
    })
    attached()
    await runTogether(signal, [
      (stop) => drainEvery(drainIntervalMs, stop, () => drain.step(false)),
      (stop) => runEvery(watchIntervalMs, stop, watch.look),
    ])
  }
}

/** Fetches until the kernel has nothing more to send, for a bounded time: what is left would go to its log. */
async function drainRest(control: AuditControl, drain: ReturnType<typeof createDrain>): Promise<void> {
  for (let look = 0; look < lastLooksMax; look++) {
    const { backlog } = await control.status()
    const found = drain.step(false)
    if (backlog === 0 && !found) return
    await new Promise((resolve) => setTimeout(resolve, lastLookPauseMs))
  }
}

function createDrain(
  options: AuditSensorOptions,
  connector: Connector,
  stream: AuditStream,
  sink: RecordSink,
) {
  const { clock = Date.now, excludedPids, protectedPids = () => [process.pid] } = options
  const nowMs = () => performance.now()
  const isExcluded = (pid: number) => excludedPids?.has(pid) ?? false
  const ordering = createOrdering()
  let urgent: SensorRecord[] = []
  let changed: (change: ConfigurationChange) => void = () => undefined
  const add = (record: SensorRecord) => {
    urgent.push(record)
  }
  const lose = (source: string, count: number | null) =>
    add({ kind: 'loss', timestampMs: clock(), source: `${name}:${source}`, count })
  const tell = createEventRecords({
    keyOf: connector.lives.keyOf,
    parentOf: (pid) => connector.lives.parentOf(pid).pid,
    sessionOf: connector.lives.sessionOf,
    isExcluded,
    isProtected: (pid) => protectedPids().includes(pid),
    add: ordering.addObserved,
    configurationChanged: (change) => changed(change),
    nowMs,
  })
  let complete: AuditEvent[] = []
  const assembly = createAssembly({ add: (event) => complete.push(event), nowMs })
  const target = {
    record(type: number, payload: Buffer) {
      if (!assembly.add(type, payload)) lose('unreadable', 1)
    },
    overflow: () => lose('queue', null),
    unreadable: () => lose('unreadable', null),
  }
  const addProcessEvent = (record: SensorRecord) => {
    if (!('process' in record) || record.process === null || !isExcluded(record.process.pid))
      ordering.addProcessEvent(record)
  }
  const connectorTarget = {
    fork: addProcessEvent,
    exit: addProcessEvent,
    loss: add,
    // Audit tells it, with its arguments.
    exec({ process, timestampMs }: ExecObservation) {
      if (!isExcluded(process.pid)) ordering.expectExec(process.pid, timestampMs)
    },
  }

  /** `missing` tells how many events never came. */
  function fetch(missing: () => number) {
    let found = false
    let emptied = false
    for (let round = 0; round < roundsMax && !emptied; round++) {
      const drained = stream.drain(target)
      found ||= drained.found
      emptied = drained.emptied
    }
    const count = missing()
    if (count > 0) lose('events', count)
    // After audit, so that the fork of every process that audit tells of is known by now.
    found = connector.fetch(connectorTarget) || found
    const events = complete
    complete = []
    for (const event of events) tell(event)
    return { found, emptied }
  }

  function handUp(untilMs: number): number {
    const records = [...urgent, ...ordering.release(untilMs)]
    urgent = []
    if (records.length > 0) sink(records)
    return records.length
  }

  return {
    add,
    clock,
    tellChangesTo(listener: (change: ConfigurationChange) => void) {
      changed = listener
    },
    /** True when there was something to fetch or to hand up. */
    step(atOnce: boolean): boolean {
      const { found, emptied } = fetch(assembly.settle)
      const untilMs = emptied ? clock() - settleMs : assembly.newestMs() - settleMs
      const told = handUp(atOnce ? Number.POSITIVE_INFINITY : untilMs)
      return found || told > 0
    },
    finish() {
      fetch(assembly.finish)
      connector.finish(connectorTarget)
      handUp(Number.POSITIVE_INFINITY)
    },
  }
}
