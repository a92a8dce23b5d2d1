/** systemd's own programs, for what has no other door. */
import { execFile, spawnSync } from 'node:child_process'
import type { NativeAddon } from '../../native/addon.ts'

export type SystemctlResult =
  | { readonly ok: true; readonly output: string }
  | { readonly ok: false; readonly reason: string }

const TIMEOUT_MS = 90_000

/** Runs systemctl(1) to its end. */
export function systemctl(...args: readonly string[]): SystemctlResult {
  const ran = spawnSync('systemctl', args, { encoding: 'utf8', timeout: TIMEOUT_MS })
  if (ran.error !== undefined) return { ok: false, reason: `systemctl cannot be run: ${ran.error.message}` }
  if (ran.status === 0) return { ok: true, output: ran.stdout.trim() }
  return { ok: false, reason: `systemctl ${args.join(' ')}: ${(ran.stderr || ran.stdout).trim()}` }
}

/**
 * Sends to a service manager's socket: by the addon, which Node needs for it; without one by systemd-notify(1),
 * because an agent that runs on its fallbacks must not be ended for its silence.
 */
export function notifySender(native: NativeAddon | null): (socketPath: string, message: string) => void {
  if (native !== null) return (socketPath, message) => native.notifyService(socketPath, Buffer.from(message))
  return (socketPath, message) => {
    const env = { PATH: '/usr/bin:/bin', NOTIFY_SOCKET: socketPath }
    execFile('systemd-notify', message.split('\n'), { env, timeout: TIMEOUT_MS }, () => undefined)
  }
}
