/**
 * Looks after audit once a second: messages that the kernel lost, other programs that take the daemon's place or
 * leave it, rules that were deleted, and audit being switched off.
 */
import { createElapsed } from '../elapsed.ts'
import type { SensorRecord } from '../records.ts'
import type { AuditControl } from './control.ts'
import type { ConfigurationChange } from './event-records.ts'
import type { AuditSettings } from './state.ts'
import type { AuditStream } from './stream.ts'

const wordSize = 4_294_967_296
/** How long the daemon's place is left to another program that asked for it. */
const yieldMs = 15_000

export interface WatchOptions {
  readonly control: AuditControl
  readonly settings: AuditSettings
  readonly stream: AuditStream
  readonly protectedPids: () => readonly number[]
  readonly add: (record: SensorRecord) => void
  readonly clock: () => number
}

export interface Watch {
  begin(): Promise<void>
  /** Throws when audit is of no use any more. */
  look(): Promise<void>
  configurationChanged(change: ConfigurationChange): void
}

export function createWatch(options: WatchOptions): Watch {
  const { control, settings, stream, protectedPids, add, clock } = options
  const elapsed = createElapsed(clock)
  let lost = 0
  let yieldedUntilMs = 0
  let removed: { readonly change: ConfigurationChange; count: number } | null = null
  let protectedNow = ''

  function tellLost(now: number): void {
    // Somebody may set the counter back.
    const count = now >= lost ? now - lost : now + (lost > wordSize / 2 ? wordSize - lost : 0)
    lost = now
    if (count > 0) add({ kind: 'loss', timestampMs: clock(), source: 'audit:messages', count })
  }

  function keepPlace(pid: number): void {
    if (stream.isAskedToYield()) yieldedUntilMs = elapsed() + yieldMs
    const isFree = pid === 0 || pid === process.pid
    stream.attach(isFree && elapsed() >= yieldedUntilMs && (pid === 0 || stream.isDaemon()))
  }

  async function mendRules(): Promise<void> {
    const pids = protectedPids().join()
    if (removed === null && pids === protectedNow) return
    protectedNow = pids
    if (removed !== null) {
      const { change, count } = removed
      const by = change.executable === null ? '' : ` by ${change.executable}`
      const reason = `${count} audit rules of Cordon's were deleted${by}, and were added again`
      add({ kind: 'tamper', timestampMs: change.timestampMs, process: change.process, reason })
      removed = null
    }
    await settings.addRules(protectedPids())
  }

  return {
    async begin() {
      lost = (await control.status()).lost
      protectedNow = protectedPids().join()
    },
    async look() {
      const status = await control.status()
      tellLost(status.lost)
      if (status.enabled === 0) throw new Error("the host's audit was switched off by another program")
      keepPlace(status.pid)
      await mendRules()
    },
    configurationChanged(change) {
      if (change.process?.pid === process.pid) return
      if (change.kind === 'rule-removed') {
        removed = { change: removed?.change ?? change, count: (removed?.count ?? 0) + 1 }
        return
      }
      const by = change.executable === null ? '' : ` by ${change.executable}`
      const reason = `the host's audit was switched off${by}`
      add({ kind: 'tamper', timestampMs: change.timestampMs, process: change.process, reason })
    },
  }
}
