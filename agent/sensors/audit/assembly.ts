/**
 * Joins the records of one event, which the kernel sends one by one with the same serial number and mixed with
 * those of other cpus. An event is over with its EOE record, or after a while without one; a serial number that
 * never comes is an event that was lost.
 */
import { type ArgumentCollector, createArgumentCollector } from './arguments.ts'
import { type Fields, parseFields, parseHeader } from './record-text.ts'

/** Record types of linux/audit.h. */
export const RECORD_TYPES = {
  systemCall: 1300,
  path: 1302,
  socketCall: 1304,
  configurationChange: 1305,
  socketAddress: 1306,
  workingDirectory: 1307,
  execve: 1309,
  objectPid: 1318,
  endOfEvent: 1320,
  processTitle: 1327,
  kernelModule: 1330,
} as const

const userMessages = { first: 1100, last: 1199 } as const
const parsedTypes = new Set<number>([
  RECORD_TYPES.systemCall,
  RECORD_TYPES.path,
  RECORD_TYPES.socketCall,
  RECORD_TYPES.configurationChange,
  RECORD_TYPES.socketAddress,
  RECORD_TYPES.workingDirectory,
  RECORD_TYPES.objectPid,
  RECORD_TYPES.kernelModule,
])

/** Records of one event that are kept: an execve has five or six, an unlink of many names no more. */
const recordsPerEventMax = 32
const inFlightMaxDefault = 4_096
const waitMsDefault = 2_000
const missingMax = 16_384

export interface AuditRecord {
  readonly type: number
  readonly fields: Fields
}

export interface AuditEvent {
  readonly serial: number
  /** Wall clock at the beginning of the system call, coarse to some milliseconds. */
  readonly timestampMs: number
  readonly records: readonly AuditRecord[]
  readonly arguments: ArgumentCollector | null
}

interface Assembling {
  readonly serial: number
  readonly timestampMs: number
  readonly records: AuditRecord[]
  arguments: ArgumentCollector | null
  readonly seenMs: number
}

export interface AssemblyOptions {
  readonly add: (event: AuditEvent) => void
  /** Monotonic milliseconds. */
  readonly nowMs: () => number
  readonly inFlightMax?: number
  readonly waitMs?: number
}

export interface Assembly {
  /** Takes one record; false when it is not one. */
  add(type: number, payload: Buffer): boolean
  /** Hands up what waited too long, and returns how many events are missing for as long. */
  settle(): number
  /** Hands up all that waits; returns how many events are missing. */
  finish(): number
  /** Wall clock of the newest record. */
  newestMs(): number
}

export function createAssembly(options: AssemblyOptions): Assembly {
  const { nowMs, inFlightMax = inFlightMaxDefault, waitMs = waitMsDefault } = options
  // Both in the order of arrival, because an entry is never put in again.
  const inFlight = new Map<number, Assembling>()
  const serials = createSerials(nowMs, waitMs)
  let newestMs = 0

  function complete(event: Assembling): void {
    inFlight.delete(event.serial)
    options.add(event)
  }

  function find(serial: number, timestampMs: number): Assembling {
    const known = inFlight.get(serial)
    if (known) return known
    if (inFlight.size >= inFlightMax) {
      const oldest = inFlight.values().next()
      if (!oldest.done) complete(oldest.value)
    }
    const event: Assembling = { serial, timestampMs, records: [], arguments: null, seenMs: nowMs() }
    inFlight.set(serial, event)
    return event
  }

  return {
    add(type, payload) {
      // Half of all bytes, and told better by EXECVE.
      if (type === RECORD_TYPES.processTitle) return true
      const text = payload.toString('latin1')
      const header = parseHeader(text)
      if (header === null) return false
      newestMs = Math.max(newestMs, header.timestampMs)
      serials.add(header.serial)
      if (type === RECORD_TYPES.endOfEvent) {
        const event = inFlight.get(header.serial)
        if (event) complete(event)
        return true
      }
      if (type >= userMessages.first && type <= userMessages.last) {
        const records = [{ type, fields: parseFields(text, header.bodyStart) }]
        options.add({ serial: header.serial, timestampMs: header.timestampMs, records, arguments: null })
        return true
      }
      const event = find(header.serial, header.timestampMs)
      if (type === RECORD_TYPES.execve) {
        event.arguments ??= createArgumentCollector()
        event.arguments.add(text.slice(header.bodyStart))
      } else if (parsedTypes.has(type) && event.records.length < recordsPerEventMax) {
        event.records.push({ type, fields: parseFields(text, header.bodyStart) })
      }
      return true
    },
    settle() {
      const beforeMs = nowMs() - waitMs
      for (const event of inFlight.values()) {
        if (event.seenMs > beforeMs) break
        complete(event)
      }
      return serials.settle(beforeMs)
    },
    finish() {
      for (const event of inFlight.values()) complete(event)
      return serials.settle(Number.POSITIVE_INFINITY)
    },
    newestMs: () => newestMs,
  }
}

/** A step back as wide as this is the counter beginning anew. */
const serialStepMax = 1_000_000

/** Which serial numbers were passed over and have not come since. */
function createSerials(nowMs: () => number, waitMs: number) {
  const missing = new Map<number, number>()
  let next: number | null = null
  let given = 0
  return {
    add(serial: number) {
      if (next === null || Math.abs(serial - next) > serialStepMax) {
        next = serial + 1
        return
      }
      if (serial < next) {
        missing.delete(serial)
        return
      }
      for (let passed = next; passed < serial; passed++) {
        if (missing.size >= missingMax) {
          given += serial - passed
          break
        }
        missing.set(passed, nowMs())
      }
      next = serial + 1
    },
    settle(beforeMs: number): number {
      let count = given
      given = 0
      for (const [serial, sinceMs] of missing) {
        if (sinceMs > beforeMs && waitMs > 0) break
        missing.delete(serial)
        count += 1
      }
      return count
    },
  }
}
