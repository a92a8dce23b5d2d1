/**
 * Who has systemd start, stop, enable and mask what: calls to it on the system bus, with the caller's process, and
 * the jobs that it announces. A call is told once systemd took it; one that was refused changed nothing. One that
 * wants no answer gets none, so it is told as it was made. root's systemctl calls systemd past the bus: of that, the
 * jobs are told, without a caller.
 */
import { statSync } from 'node:fs'
import { createBackoff } from '../../../shared/node/backoff.ts'
import { pause } from '../../../shared/node/loop.ts'
import { createElapsed } from '../elapsed.ts'
import type { ConfigurationChange, ConfigurationRecord, RecordSink, Sensor } from '../records.ts'
import { BUS, type BusConnection, connectToBus } from './bus-connection.ts'
import { type Callers, createCallers } from './callers.ts'
import { createJobs } from './jobs.ts'
import { MESSAGE_TYPES, type Message, NO_REPLY_EXPECTED } from './message.ts'
import { changesOfCall, SYSTEMD } from './unit-calls.ts'

export interface SystemdBusOptions {
  readonly clock: () => number
  readonly socketPath?: string
  readonly backoffMs?: { readonly min: number; readonly max: number }
}

export interface SystemdBusSensor extends Sensor {
  /** Messages that were passed over, because they were too long or malformed. */
  refusedMessages(): number
}

const name = 'systemd-bus'
const SYSTEM_BUS_PATH = '/run/dbus/system_bus_socket'
const MANAGER = {
  destination: SYSTEMD,
  path: '/org/freedesktop/systemd1',
  interface: `${SYSTEMD}.Manager`,
} as const
const RULES = [
  `type='method_call',destination='${SYSTEMD}'`,
  `type='method_return',sender='${SYSTEMD}'`,
  `type='error',sender='${SYSTEMD}'`,
  `type='signal',sender='${SYSTEMD}',interface='${SYSTEMD}.Manager',member='JobNew'`,
  "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged'",
]
const BACKOFF_MS = { min: 1_000, max: 60_000 }
/** Somebody may be asked for a password before systemd answers. */
const REPLY_WAIT_MS = 180_000
const WAITING_MAX = 1_024

/** Whether there is a bus, and this process may watch it. */
export function probeSystemdBus(socketPath: string = SYSTEM_BUS_PATH): {
  readonly ok: boolean
  readonly reason: string
} {
  if (process.geteuid?.() !== 0)
    return { ok: false, reason: 'only root may watch the system bus: run the agent as root' }
  try {
    if (statSync(socketPath).isSocket()) return { ok: true, reason: 'calls to systemd, with who called' }
    return { ok: false, reason: `${socketPath} is no socket` }
  } catch {
    return { ok: false, reason: `there is no system bus at ${socketPath}` }
  }
}

export function createSystemdBusSensor(options: SystemdBusOptions): SystemdBusSensor {
  const { clock, socketPath = SYSTEM_BUS_PATH, backoffMs = BACKOFF_MS } = options
  let refused = 0

  /** Watches until the connection ends; resolves with the reason. */
  async function watch(sink: RecordSink, signal: AbortSignal, attached: () => void): Promise<string> {
    const asking = await connectToBus({ socketPath, message: () => undefined })
    let watching: BusConnection | undefined
    const stop = () => {
      asking.close()
      watching?.close()
    }
    try {
      const told = createTold(asking, sink, clock)
      watching = await connectToBus({
        socketPath,
        message(message) {
          try {
            told.take(message)
          } catch {
            // A body that does not hold together: systemd refuses it, too.
            refused += 1
          }
        },
        refused: () => {
          refused += 1
        },
      })
      signal.addEventListener('abort', stop, { once: true })
      // Without a subscriber systemd tells nobody of its jobs; where it is not there yet, the calls alone are told.
      void asking.call({ ...MANAGER, member: 'Subscribe' })
      const become = await watching.call({
        ...BUS,
        interface: 'org.freedesktop.DBus.Monitoring',
        member: 'BecomeMonitor',
        signature: 'asu',
        body: [RULES, 0],
      })
      if (!become.ok) throw new Error(`the bus does not let it watch: ${become.reason}`)
      attached()
      return await Promise.race([watching.ended, asking.ended])
    } finally {
      signal.removeEventListener('abort', stop)
      stop()
    }
  }

  return {
    name,
    refusedMessages: () => refused,
    async run(sink, signal, attached) {
      const backoff = createBackoff(backoffMs.min, backoffMs.max)
      let hasAttached = false
      while (!signal.aborted) {
        let stood = false
        try {
          await watch(sink, signal, () => {
            stood = true
            backoff.reset()
            if (!hasAttached) attached()
            hasAttached = true
          })
        } catch {
          // It is tried again: a bus that restarts is away for a moment.
        }
        if (signal.aborted) return
        if (stood) sink([{ kind: 'loss', timestampMs: clock(), source: name, count: null }])
        await pause(backoff.next() + 1, signal)
      }
    },
  }
}

interface Waiting {
  readonly changes: readonly ConfigurationChange[]
  readonly pid: Promise<number | null>
  readonly timestampMs: number
  readonly arrivedMs: number
}

/** What the watching connection hears, and what becomes of it. */
function createTold(asking: BusConnection, sink: RecordSink, clock: () => number) {
  const callers: Callers = createCallers(asking)
  const jobs = createJobs(asking)
  const elapsed = createElapsed(clock)
  const waiting = new Map<string, Waiting>()

  async function tell({ changes, pid, timestampMs }: Waiting): Promise<void> {
    const caller = await pid
    const process = caller === null ? null : { pid: caller, startTicks: null }
    sink(
      changes.map((change): ConfigurationRecord => ({ kind: 'configuration', timestampMs, process, change })),
    )
  }

  function forgetOld(): void {
    for (const [key, { arrivedMs }] of waiting) {
      // In the order of their calls.
      if (waiting.size < WAITING_MAX && elapsed() - arrivedMs < REPLY_WAIT_MS) return
      waiting.delete(key)
    }
  }

  function takeCall(message: Message): void {
    if (message.sender === null || message.sender === asking.uniqueName) return
    const changes = changesOfCall(message)
    if (changes.length === 0) return
    const pid = callers.pidOf(message.sender)
    const call: Waiting = { changes, pid, timestampMs: clock(), arrivedMs: elapsed() }
    forgetOld()
    if ((message.flags & NO_REPLY_EXPECTED) !== 0) void tell(call)
    else waiting.set(`${message.sender} ${message.serial}`, call)
  }

  function takeReply(message: Message): void {
    const key = `${message.destination} ${message.replySerial}`
    const call = waiting.get(key)
    if (call === undefined) return
    waiting.delete(key)
    if (message.type === MESSAGE_TYPES.reply) void tell(call)
  }

  async function takeJob(message: Message): Promise<void> {
    const timestampMs = clock()
    const change = await jobs.changeOf(message.body(), timestampMs)
    if (change !== null) sink([{ kind: 'configuration', timestampMs, process: null, change }])
  }

  function takeSignal(message: Message): void {
    if (message.member === 'JobNew') void takeJob(message).catch(() => undefined)
    if (message.member !== 'NameOwnerChanged') return
    const [busName, oldOwner, newOwner] = message.body()
    if (typeof busName !== 'string' || !busName.startsWith(':')) return
    if (newOwner !== '') void callers.pidOf(busName)
    else if (oldOwner !== '') callers.forget(busName)
  }

  return {
    take(message: Message): void {
      if (message.type === MESSAGE_TYPES.call) takeCall(message)
      else if (message.type === MESSAGE_TYPES.signal) takeSignal(message)
      else takeReply(message)
    },
  }
}
