/**
 * Processes from the kernel's process events and /proc: every fork, exec and exit is seen, with its exact exit
 * code. What a program is and its arguments are read from /proc afterwards, so of one that is gone by then only
 * its process, its parent and its end are known: such an exec is told as that of `(unknown)` and, in place of its
 * own, with the user and the folder of its parent.
 */
import type { ProcessSnapshot } from '../../platform/linux/proc.ts'
import { drainEvery } from '../drain-timer.ts'
import type { ExecRecord, Sensor, SensorRecord } from '../records.ts'
import { type ConnectorOptions, type ExecObservation, openConnector } from './connector.ts'

export interface ProcConnectorOptions extends ConnectorOptions {
  readonly readProcess: (pid: number) => ProcessSnapshot | null
  /** Processes that are left out, such as the agent's own. It may change at any time. */
  readonly excludedPids?: { has(pid: number): boolean }
  readonly drainIntervalMs?: number
}

const unknownExecutable = '(unknown)'
/** Shorter than other layers': what is read from /proc must still be there. */
const drainIntervalMsDefault = 20

export function createProcConnectorSensor(options: ProcConnectorOptions): Sensor {
  const { readProcess, excludedPids, drainIntervalMs = drainIntervalMsDefault } = options
  const isExcluded = (pid: number) => excludedPids?.has(pid) ?? false
  return {
    name: 'proc-connector',
    async run(sink, signal, attached) {
      const connector = openConnector(options)
      let records: SensorRecord[] = []
      const add = (record: SensorRecord) => {
        if (!('process' in record) || record.process === null || !isExcluded(record.process.pid))
          records.push(record)
      }
      const exec = (observation: ExecObservation) => {
        if (!isExcluded(observation.process.pid))
          records.push(
            execRecord(observation, connector.lives.sessionOf(observation.process.pid), readProcess),
          )
      }
      const target = { fork: add, exit: add, loss: add, exec }
      const handUp = () => {
        if (records.length === 0) return
        const batch = records
        records = []
        sink(batch)
      }
      try {
        attached()
        await drainEvery(drainIntervalMs, signal, () => {
          const found = connector.fetch(target)
          handUp()
          return found
        })
        connector.finish(target)
        handUp()
      } finally {
        connector.close()
      }
    },
  }
}

function execRecord(
  observation: ExecObservation,
  sessionId: number,
  readProcess: ProcConnectorOptions['readProcess'],
): ExecRecord {
  const { process, parent } = observation
  const found = readProcess(process.pid)
  const isIt = found?.process.startTicks === process.startTicks
  const snapshot = isIt && found.executable !== null ? found : null
  const owner = snapshot ?? readProcess(parent.pid)
  return {
    kind: 'exec',
    timestampMs: observation.timestampMs,
    process,
    parent,
    userId: owner?.userId ?? 0,
    groupId: owner?.groupId ?? 0,
    sessionId: snapshot?.sessionId ?? sessionId,
    executable: snapshot?.executable ?? unknownExecutable,
    arguments: snapshot?.arguments ?? [],
    argumentsTruncated: snapshot?.argumentsTruncated ?? true,
    workingDirectory: owner?.workingDirectory ?? '/',
    file: snapshot?.file ?? null,
  }
}
