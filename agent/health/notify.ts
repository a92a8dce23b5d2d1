/**
 * What the agent tells systemd when that runs it (sd_notify(3)): that it is ready, that it still turns, that it
 * stops. Started by anybody else it tells nobody.
 */
import { runEvery } from '../../shared/node/loop.ts'

export interface ServiceNotifier {
  /** The agent does its work: units ordered after it may start, and the watchdog counts from here. */
  ready(status: string): void
}

interface NotifierOptions {
  readonly environment: NodeJS.ProcessEnv
  readonly pid: number
  /** Sends one message to the manager's socket; may throw. */
  readonly send: (socketPath: string, message: string) => void
  readonly signal: AbortSignal
  readonly warn: (reason: string) => void
}

const STATUS_CHARACTERS_MAX = 200
const WATCHDOG_INTERVAL_MIN_MS = 500

/** Tells `STOPPING=1` by itself when `signal` aborts, and `WATCHDOG=1` twice in each period from `ready` on. */
export function createServiceNotifier(options: NotifierOptions): ServiceNotifier {
  const { environment, signal } = options
  const socketPath = environment.NOTIFY_SOCKET
  // systemd also knows sockets of virtual machines, which are for managers outside of this system.
  if (socketPath === undefined || !/^[/@]./.test(socketPath)) return { ready: () => undefined }

  const tell = (message: string) => {
    try {
      options.send(socketPath, message)
    } catch (error) {
      options.warn(`the service manager was not told ${message.split('\n')[0]}: ${(error as Error).message}`)
    }
  }
  signal.addEventListener('abort', () => tell('STOPPING=1'), { once: true })
  const intervalMs = watchdogIntervalMs(environment, options.pid)
  return {
    ready(status) {
      if (signal.aborted) return
      tell(`READY=1\nSTATUS=${status.replaceAll(/\s+/g, ' ').slice(0, STATUS_CHARACTERS_MAX)}`)
      // Of the main loop, so that an agent which hangs is silent.
      if (intervalMs !== null) void runEvery(intervalMs, signal, () => tell('WATCHDOG=1'))
    },
  }
}

/** Half of what the unit allows; null: the unit asks this process for no sign of life. */
function watchdogIntervalMs(environment: NodeJS.ProcessEnv, pid: number): number | null {
  const microseconds = Number(environment.WATCHDOG_USEC)
  const meant = environment.WATCHDOG_PID
  if (!(microseconds > 0) || (meant !== undefined && Number(meant) !== pid)) return null
  return Math.max(WATCHDOG_INTERVAL_MIN_MS, Math.floor(microseconds / 2_000))
}
