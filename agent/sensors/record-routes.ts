/**
 * The way of a record from its layer to the event builder: those who read files again hear of it first, what
 * several sources tell is told once, and all that comes in number passes the volume room.
 */
import { createLogonMerge } from './logons/logon-merge.ts'
import type { FileRecord, RecordSink, SensorRecord } from './records.ts'
import { createServiceStateMerge } from './systemd-bus/service-state-merge.ts'

export interface RecordRoutes {
  readonly accept: RecordSink
  /** Lets through what still waits, and ends. */
  close(): void
}

interface Options {
  /** Where all records end. */
  readonly sink: RecordSink
  readonly clock: () => number
  readonly observeFile: (record: FileRecord) => void
  readonly filesLost: () => void
  readonly noticeMounts: (pid: number) => void
}

export function createRecordRoutes(options: Options): RecordRoutes {
  const { sink, clock } = options
  const logons = createLogonMerge({ sink, clock })
  const services = createServiceStateMerge({ sink, clock })

  /** False when the record took a way of its own. */
  function passes(record: SensorRecord): boolean {
    switch (record.kind) {
      case 'file':
        options.observeFile(record)
        return true
      case 'mount':
      case 'namespace':
        if (record.process !== null) options.noticeMounts(record.process.pid)
        return true
      case 'loss':
        if (record.source.startsWith('fanotify')) options.filesLost()
        return true
      case 'logon':
        logons.observe(record)
        return false
      case 'configuration':
        services.observe(record)
        return false
      default:
        return true
    }
  }

  return {
    accept(records) {
      // Nearly always all of them pass: no copy is made then.
      const firstApart = records.findIndex((record) => !passes(record))
      if (firstApart === -1) {
        sink(records)
        return
      }
      const passing = records.slice(0, firstApart)
      for (const record of records.slice(firstApart + 1)) if (passes(record)) passing.push(record)
      if (passing.length > 0) sink(passing)
    },
    close() {
      logons.close()
      services.close()
    },
  }
}
