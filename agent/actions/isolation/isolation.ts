/**
 * The isolation of this host, from its first rule to its end. The invariants held here:
 * - the record is on disk before anything is cut, and its stage before what the stage allows;
 * - what was never confirmed by an authenticated round trip is rolled back when its time is over;
 * - what was confirmed ends by a signed release, its lease or the break-glass code, and by nothing that can be
 *   done to the network: not by silence of the controller, a restart or a boot;
 * - the record decides over the kernel: rules that vanished are put back, rules without a record are removed.
 */
import type { Logger } from '../../../shared/node/logger.ts'
import { aborted, pause, runEvery } from '../../../shared/node/loop.ts'
import type { IsolationStatus } from '../../../shared/protocol/messages.ts'
import { type ApplyResult, cut, type ProbeResult, type Proof } from '../action.ts'
import type { Permission } from '../interlock.ts'
import { type CodeAnswer, checkBreakGlass } from './break-glass.ts'
import type { Resolved } from './controllers.ts'
import type { Firewall, FirewallResult } from './firewall.ts'
import { type BootClock, leaseLeftMs, measuredLease, startLease } from './lease.ts'
import {
  type EndingHow,
  type IsolationRecord,
  readRecord,
  removeRecord,
  setRecordAside,
  writeRecord,
} from './record.ts'
import type { Endpoint } from './ruleset.ts'

/** Without an authenticated round trip within this time of applying, isolation is rolled back. */
export const CONFIRM_WITHIN_MS = 60_000
const ROUND_TRIP_MS = 5_000
const ROUND_TRIP_PAUSE_MS = 250
/** Only while isolated: new devices get their hooks within this time. */
const WATCH_MS = 250
const LOOK_EVERY_MS = 5_000
const CHECK_EVERY_MS = 600_000
/** So much of a lease may be counted twice after a power cut. */
const MEASURE_EVERY_MS = 60_000

export interface IsolationOptions {
  readonly stateFolder: string
  readonly firewall: Firewall
  readonly permission: () => Permission
  readonly networkNamespace: () => string
  readonly resolveControllers: () => Promise<Resolved>
  readonly ownAddresses: () => readonly string[]
  /** True when the controller answers a ping that is sent now, over the authenticated connection. */
  readonly roundTrip: (timeoutMs: number) => Promise<boolean>
  /** Dials the controller anew. */
  readonly reconnect: (reason: string) => void
  /** Resolves when the controller has the receipt of the command, with false when that takes too long. */
  readonly receiptSent: (signal: AbortSignal) => Promise<boolean>
  readonly bootClock: () => BootClock
  readonly clock: () => number
  /** Tells durably that what the command had done was taken back. */
  readonly reverted: (commandId: string, reason: string, proof: Proof) => void
  readonly tampered: (reason: string) => void
  readonly changed: () => void
  readonly logger: Logger
  readonly confirmWithinMs?: number
  /** How often the rules in the kernel are looked at while they are in force. */
  readonly lookEveryMs?: number
}

export interface IsolateRequest {
  readonly commandId: string
  readonly leaseMs: number | null
  readonly breakGlassHash: string | null
}

export interface Isolation {
  /** `possible` is of the last look at it: at the start, and before each isolation. */
  status(): IsolationStatus
  /** The addresses that can be dialled; null: any. */
  reachable(): readonly Endpoint[] | null
  isolate(request: IsolateRequest, signal: AbortSignal): Promise<ApplyResult>
  /** Waits until the isolation of that command is confirmed or taken back, then looks at the kernel. */
  settled(commandId: string, signal: AbortSignal): Promise<ProbeResult>
  release(reason: string): Promise<ApplyResult>
  released(): Promise<ProbeResult>
  /** What was typed on the host. */
  breakGlass(code: string): Promise<CodeAnswer>
  /** Takes up what the record says, then keeps it until `signal` aborts; what is in force stays in force. */
  run(signal: AbortSignal): Promise<void>
}

interface Ended {
  readonly commandId: string
  readonly how: EndingHow
  readonly reason: string
}

export function createIsolation(options: IsolationOptions): Isolation {
  const { firewall, stateFolder, bootClock, clock, logger } = options
  const confirmWithinMs = options.confirmWithinMs ?? CONFIRM_WITHIN_MS
  const lookEveryMs = options.lookEveryMs ?? LOOK_EVERY_MS
  let record: IsolationRecord | null = null
  /** The record was damaged and rules were found: they stay until a signed release. */
  let orphaned = false
  let capability: FirewallResult = { ok: false, reason: 'it was not looked at yet' }
  let lastEnded: Ended | null = null
  let digest: string | null = null
  let devices = ''
  let looked = 0
  let measured = Number.NEGATIVE_INFINITY
  let waiting: (() => void)[] = []
  const started = Promise.withResolvers<void>()
  const inTurn = createTurns()

  function changed(): void {
    const woken = waiting
    waiting = []
    for (const wake of woken) wake()
    options.changed()
  }

  /** Resolves with the next change, or when `signal` aborts. */
  async function nextChange(signal: AbortSignal): Promise<void> {
    await Promise.race([aborted(signal), new Promise<void>((resolve) => waiting.push(resolve))])
  }

  function keep(next: IsolationRecord): void {
    writeRecord(stateFolder, next)
    record = next
  }

  async function putInForce(of: IsolationRecord): Promise<FirewallResult> {
    const applied = await firewall.apply(of.controllers, of.devices)
    if (!applied.ok) return applied
    digest = applied.digest
    devices = applied.devices.join()
    looked = performance.now()
    const networkNamespace = options.networkNamespace()
    if (of.devices.join() !== devices || of.networkNamespace !== networkNamespace) {
      keep({ ...of, devices: [...applied.devices], networkNamespace })
    }
    return { ok: true }
  }

  async function end(of: IsolationRecord, how: EndingHow, reason: string): Promise<FirewallResult> {
    if (of.stage !== 'ended') keep({ ...of, stage: 'ended', ending: { how, reason: cut(reason) } })
    const removed = await firewall.remove()
    if (!removed.ok) {
      logger.error({ reason: removed.reason }, 'the rules of isolation could not be removed; trying again')
      return removed
    }
    const ending = of.ending ?? { how, reason }
    options.reverted(of.commandId, ending.reason, { how: ending.how, rulesLeft: false })
    if (ending.how === 'breakGlass') options.tampered(`isolation was ended on the host: ${ending.reason}`)
    removeRecord(stateFolder)
    lastEnded = { commandId: of.commandId, how: ending.how, reason: ending.reason }
    record = null
    digest = null
    logger.warn({ command: of.commandId, how: ending.how }, ending.reason)
    changed()
    return { ok: true }
  }

  async function isolate(request: IsolateRequest, signal: AbortSignal): Promise<ApplyResult> {
    await started.promise
    const refuse = (code: string, reason: string) => ({ kind: 'refused' as const, code, reason })
    const permission = options.permission()
    if (!permission.ok) return refuse('interlock', permission.reason)
    const resolved = await options.resolveControllers()
    if (!resolved.ok) return refuse('unresolved', resolved.reason)
    capability = await firewall.check()
    if (!capability.ok) return refuse('notPossible', capability.reason)
    const receipt = await options.receiptSent(signal)
    if (signal.aborted) return { kind: 'aborted' }
    return inTurn(() => cutOff(request, resolved.controllers, receipt))
  }

  async function cutOff(
    { commandId, leaseMs, breakGlassHash }: IsolateRequest,
    controllers: readonly Endpoint[],
    receipt: boolean,
  ): Promise<ApplyResult> {
    const now = bootClock()
    const before = record
    const next: IsolationRecord = {
      v: 1,
      commandId,
      // The command came through the wall that stands: there is nothing left to confirm.
      stage: before?.stage === 'confirmed' ? 'confirmed' : 'unconfirmed',
      controllers: (before?.stage === 'confirmed' ? before.controllers : controllers).map((one) => ({
        ...one,
      })),
      breakGlassHash,
      lease: startLease(leaseMs, now),
      appliedMs: clock(),
      bootId: now.bootId,
      appliedBootMs: now.bootMs,
      networkNamespace: options.networkNamespace(),
      devices: [...firewall.devices()],
      ending: null,
    }
    keep(next)
    orphaned = false
    const applied = await putInForce(next)
    if (!applied.ok) return await undo(applied.reason)
    const closedFlows = await firewall.closeFlows(next.controllers, options.ownAddresses())
    changed()
    const reached = next.controllers.map(({ address, port }) => `${address} port ${port}`).join(', ')
    return {
      kind: 'applied',
      reason: `cut off from everything but the controller (${reached})`,
      proof: {
        controllers: reached,
        devices: firewall.devices().join(','),
        rules: digest,
        receiptAcknowledged: receipt,
        closedFlows,
        leaseMs,
      },
    }
  }

  /** What could not be put in force in whole is not left in part. */
  async function undo(why: string): Promise<ApplyResult> {
    const removed = await firewall.remove()
    if (removed.ok) {
      removeRecord(stateFolder)
      record = null
    }
    const left = removed.ok ? '' : `; what was begun is still there: ${removed.reason}`
    changed()
    return { kind: 'failed', reason: `isolation could not be put in force: ${why}${left}`, proof: {} }
  }

  async function settled(commandId: string, signal: AbortSignal): Promise<ProbeResult> {
    await Promise.race([started.promise, aborted(signal)])
    while (record?.commandId === commandId && record.stage !== 'confirmed' && !signal.aborted) {
      await nextChange(signal)
    }
    if (record?.commandId !== commandId) {
      if (lastEnded?.commandId === commandId) {
        const { how, reason } = lastEnded
        return { kind: 'reverted', reason, proof: { how, rulesLeft: false } }
      }
      return { kind: 'disproved', reason: 'no isolation of this command is in force', proof: {} }
    }
    if (signal.aborted) return { kind: 'unknown', reason: 'it was not confirmed yet', proof: {} }
    const kept = await inTurn(async () => (record === null ? { ok: true } : await keepInForce(record, true)))
    const found = await inTurn(() => firewall.look())
    if (!found.ok) return { kind: 'unknown', reason: found.reason, proof: {} }
    const inForce = kept.ok && found.digest !== null && found.digest === digest
    const proof = { rules: found.digest, inForce, controllerReached: true }
    return inForce
      ? { kind: 'proved', reason: 'the rules are in force, and the controller answers through them', proof }
      : { kind: 'disproved', reason: 'the rules in the kernel are not those that were put there', proof }
  }

  async function release(reason: string): Promise<ApplyResult> {
    await started.promise
    return inTurn(async () => {
      const present = record
      const had = present?.commandId ?? null
      const done = present === null ? await firewall.remove() : await end(present, 'command', reason)
      if (!done.ok) return { kind: 'failed', reason: done.reason, proof: {} }
      if (orphaned) {
        orphaned = false
        setRecordAside(stateFolder)
        changed()
      }
      const told = had === null ? 'nothing was cut off' : 'the isolation of this host is ended'
      return { kind: 'applied', reason: told, proof: { isolationCommand: had } }
    })
  }

  async function released(): Promise<ProbeResult> {
    const found = await inTurn(() => firewall.look())
    if (!found.ok) return { kind: 'unknown', reason: found.reason, proof: {} }
    const proof = { rulesLeft: found.digest !== null }
    if (found.digest === null) return { kind: 'proved', reason: 'no rule of isolation is left', proof }
    return { kind: 'disproved', reason: 'rules of isolation are still in force', proof }
  }

  async function breakGlass(code: string): Promise<CodeAnswer> {
    await started.promise
    return inTurn(async () => {
      const answer = checkBreakGlass({ stateFolder, record, code, now: bootClock() })
      if (answer.kind === 'wrong') options.tampered(answer.reason)
      if (answer.kind !== 'right' || record === null) return answer
      const ended = await end(record, 'breakGlass', 'released on the host with its break-glass code')
      return ended.ok ? answer : { kind: 'failed', reason: ended.reason }
    })
  }

  /** What the last run or the boot left, brought to what the record says. */
  async function takeUp(): Promise<void> {
    const read = readRecord(stateFolder)
    const found = await firewall.look()
    const inForce = found.ok && found.digest !== null
    if (read.kind === 'damaged') {
      // While the rules stay, so does what says that they do.
      orphaned = inForce
      if (!inForce) setRecordAside(stateFolder)
      const left = inForce ? '; its rules stay in force until a signed release' : ''
      options.tampered(`${read.reason}${left}`)
    } else if (read.kind === 'none') {
      if (inForce) {
        const removed = await firewall.remove()
        logger.warn({ removed }, 'rules of isolation without a record were removed')
      }
    } else {
      record = read.record
      const rebooted = record.bootId !== bootClock().bootId
      if (record.stage === 'unconfirmed' && rebooted) {
        await end(record, 'unreachable', 'the host was started anew before the controller had confirmed')
      } else if (record.stage !== 'ended') {
        const applied = await putInForce(record)
        if (!applied.ok) options.tampered(`isolation could not be put back in force: ${applied.reason}`)
      }
    }
  }

  async function confirm(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const present = record
      if (present?.stage !== 'unconfirmed') {
        await nextChange(signal)
        continue
      }
      const leftMs = present.appliedBootMs + confirmWithinMs - bootClock().bootMs
      const askedMs = performance.now()
      const waitMs = Math.min(ROUND_TRIP_MS, leftMs)
      const ended = aborted(signal).then(() => false)
      const answered = leftMs > 0 && (await Promise.race([ended, options.roundTrip(waitMs)]))
      await inTurn(async () => {
        if (record !== present || signal.aborted) return
        // Rules that are not there were not what the answer came through.
        if (answered && digest !== null) {
          keep({ ...present, stage: 'confirmed' })
          logger.warn({ command: present.commandId }, 'this host is isolated: the controller has confirmed')
          changed()
        } else if (leftMs <= ROUND_TRIP_PAUSE_MS) {
          const within = `${confirmWithinMs / 1_000} s`
          await end(present, 'unreachable', `the controller did not answer within ${within}: rolled back`)
        }
      })
      if (record !== present) continue
      // The line may be the only thing that is broken: a new one has the rest of the time.
      if (!answered && waitMs === ROUND_TRIP_MS && performance.now() - askedMs >= ROUND_TRIP_MS) {
        options.reconnect('the controller does not answer through the isolation')
      }
      await pause(Math.min(ROUND_TRIP_PAUSE_MS, Math.max(1, leftMs)), signal)
    }
  }

  async function watch(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      if (record === null) {
        await nextChange(signal)
        continue
      }
      await inTurn(() => watchOnce())
      await pause(WATCH_MS, signal)
    }
  }

  function measureLease(of: IsolationRecord): void {
    measured = performance.now()
    keep({ ...of, lease: measuredLease(of.lease, bootClock()) })
  }

  async function watchOnce(): Promise<void> {
    const present = record
    if (present === null) return
    if (present.stage === 'ended') {
      await end(present, 'command', 'its end was interrupted')
      return
    }
    if (present.stage === 'confirmed' && leaseLeftMs(present.lease, bootClock()) === 0) {
      await end(present, 'lease', 'its lease is over')
      return
    }
    if (present.lease !== null && performance.now() - measured > MEASURE_EVERY_MS) measureLease(present)
    await keepInForce(record ?? present)
  }

  /** `now`: whatever was looked at lately. */
  async function keepInForce(present: IsolationRecord, now = false): Promise<FirewallResult> {
    if (firewall.devices().join() !== devices) return await putBack(present, 'a new device is not cut off')
    if (!now && performance.now() - looked < lookEveryMs) return { ok: true }
    looked = performance.now()
    const found = await firewall.look()
    if (!found.ok) return found
    if (found.digest !== null && found.digest === digest) return { ok: true }
    // A device that goes changes the rules, too.
    if (digest !== null && firewall.devices().join() === devices) {
      options.tampered('the rules of isolation were changed by somebody else; they are put back')
    }
    return await putBack(present, 'the rules of isolation are not in force')
  }

  async function putBack(present: IsolationRecord, trouble: string): Promise<FirewallResult> {
    const applied = await putInForce(present)
    if (applied.ok) return applied
    logger.error({ reason: applied.reason }, trouble)
    // Tried again with the next look, not at once for ever.
    devices = firewall.devices().join()
    digest = null
    return applied
  }

  return {
    status() {
      const { possible, reason } = capability.ok
        ? { possible: true, reason: 'nftables works here, with egress hooks' }
        : { possible: false, reason: capability.reason }
      const present = record?.stage === 'ended' ? null : record
      const leftMs = present && leaseLeftMs(present.lease, bootClock())
      return {
        possible,
        reason: reason.slice(0, 512),
        state: present === null ? (orphaned ? 'confirmed' : 'off') : stateOf(present),
        commandId: present?.commandId ?? null,
        since: present === null ? null : new Date(present.appliedMs).toISOString(),
        leaseEnds: leftMs === null ? null : new Date(clock() + leftMs).toISOString(),
      }
    },
    reachable: () => (record === null || record.stage === 'ended' ? null : record.controllers),
    isolate,
    settled,
    release,
    released,
    breakGlass,
    async run(signal) {
      await inTurn(takeUp)
      started.resolve()
      changed()
      await Promise.all([
        confirm(signal),
        watch(signal),
        runEvery(CHECK_EVERY_MS, signal, async () => {
          if (record === null) capability = await firewall.check()
          options.changed()
        }),
      ])
      await inTurn(async () => {
        if (record?.stage === 'confirmed' && record.lease !== null) measureLease(record)
      })
    },
  }
}

function stateOf({ stage }: IsolationRecord): 'unconfirmed' | 'confirmed' {
  return stage === 'confirmed' ? 'confirmed' : 'unconfirmed'
}

/** One piece of work after the other. */
function createTurns(): <Value>(work: () => Promise<Value>) => Promise<Value> {
  let last: Promise<unknown> = Promise.resolve()
  return (work) => {
    const turn = last.then(work, work)
    last = turn.catch(() => undefined)
    return turn
  }
}
