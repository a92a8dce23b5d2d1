/**
 * The lease of an isolation, in running time of the host. Pure.
 *
 * Within one boot the kernel's boot clock alone counts: setting the time of day changes nothing. Over a reboot no
 * clock can be trusted that says how long the host was off, so that time does not count: a clock that was set
 * forward frees nothing, one that was set back holds nothing longer. What counts goes on from the last time that
 * it was written down, so a host that is on comes free in the end.
 */
import type { Lease } from './record.ts'

export interface BootClock {
  readonly bootId: string
  /** Milliseconds since boot, with the time asleep. */
  readonly bootMs: number
}

export function startLease(leaseMs: number | null, now: BootClock): Lease | null {
  return leaseMs === null ? null : { remainingMs: leaseMs, ...now }
}

/** What is left of it, at least 0; null: it has no end. */
export function leaseLeftMs(lease: Lease | null, now: BootClock): number | null {
  if (lease === null) return null
  // The host has run since its boot, and isolation is restored before the network.
  const passedMs = now.bootId === lease.bootId ? now.bootMs - lease.bootMs : now.bootMs
  return Math.max(0, lease.remainingMs - Math.max(0, passedMs))
}

/** The same lease as measured now, to be written down. */
export function measuredLease(lease: Lease | null, now: BootClock): Lease | null {
  const remainingMs = leaseLeftMs(lease, now)
  return remainingMs === null ? null : { remainingMs, bootId: now.bootId, bootMs: now.bootMs }
}
