/** What the command line does with an isolation while no agent runs: at boot before the network, and by code. */
import type { Permission } from '../interlock.ts'
import { type CodeAnswer, checkBreakGlass } from './break-glass.ts'
import type { Firewall } from './firewall.ts'
import { type BootClock, leaseLeftMs, measuredLease } from './lease.ts'
import { readRecord, writeRecord } from './record.ts'

export interface OfflineOptions {
  readonly stateFolder: string
  readonly firewall: Firewall
  readonly bootClock: () => BootClock
  readonly networkNamespace: () => string
}

export type Restored =
  | { readonly kind: 'nothing'; readonly reason: string }
  | { readonly kind: 'restored'; readonly commandId: string; readonly devices: readonly string[] }
  | { readonly kind: 'failed'; readonly reason: string }

/** Puts a confirmed isolation in force again. Needs neither network nor controller. */
export async function restoreIsolation(options: OfflineOptions): Promise<Restored> {
  const { stateFolder, firewall } = options
  const read = readRecord(stateFolder)
  if (read.kind === 'none') return { kind: 'nothing', reason: 'this host is not isolated' }
  if (read.kind === 'damaged') return { kind: 'failed', reason: read.reason }
  const { record } = read
  const now = options.bootClock()
  if (record.stage !== 'confirmed') {
    return { kind: 'nothing', reason: `the isolation is ${record.stage}: the agent decides about it` }
  }
  if (leaseLeftMs(record.lease, now) === 0) {
    return { kind: 'nothing', reason: 'the lease of the isolation is over: the agent ends it' }
  }
  const applied = await firewall.apply(record.controllers, record.devices)
  if (!applied.ok) return { kind: 'failed', reason: applied.reason }
  const networkNamespace = options.networkNamespace()
  writeRecord(stateFolder, { ...record, networkNamespace, lease: measuredLease(record.lease, now) })
  return { kind: 'restored', commandId: record.commandId, devices: applied.devices }
}

/** Ends the isolation by its code. The record stays, ended, until an agent has told of it. */
export async function releaseOffline(options: OfflineOptions, code: string): Promise<CodeAnswer> {
  const { stateFolder, firewall } = options
  const read = readRecord(stateFolder)
  if (read.kind === 'damaged') return { kind: 'failed', reason: read.reason }
  const record = read.kind === 'record' ? read.record : null
  const answer = checkBreakGlass({ stateFolder, record, code, now: options.bootClock() })
  if (answer.kind !== 'right' || record === null) return answer
  const reason = 'released on the host with its break-glass code, while no agent ran'
  writeRecord(stateFolder, { ...record, stage: 'ended', ending: { how: 'breakGlass', reason } })
  const removed = await firewall.remove()
  return removed.ok ? answer : { kind: 'failed', reason: removed.reason }
}

/** A cut may be ended where the record says that it was put in force, whoever asks. */
export function permitsLifting(
  stateFolder: string,
  networkNamespace: string,
  isolating: Permission,
): Permission {
  if (isolating.ok) return isolating
  const read = readRecord(stateFolder)
  const isThere = read.kind === 'record' && read.record.networkNamespace === networkNamespace
  return isThere ? { ok: true } : isolating
}
