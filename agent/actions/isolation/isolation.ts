/**
 * The isolation of this host, from its first rule to its end. The invariants held here:
 * - the record is on disk before anything is cut, and its stage before what the stage allows;
 * - what was never confirmed by an authenticated round trip is rolled back when its time is over;
 * - what was confirmed ends by a signed release, its lease or the break-glass code, and by nothing that can be
 *   done to the network: not by silence of the controller, a restart or a boot;
 * - the record decides over the kernel: rules that vanished are put back, rules without a record are removed.
 */
import { aborted, pause, runEvery } from '../../../shared/node/loop.ts'
import { type ApplyResult, cut, type ProbeResult } from '../action.ts'
import { type CodeAnswer, checkBreakGlass } from './break-glass.ts'
import type { FirewallResult } from './firewall.ts'
import { createKeptRules } from './kept-rules.ts'
import { leaseLeftMs, measuredLease, startLease } from './lease.ts'
import type { IsolateRequest, Isolation, IsolationOptions } from './ports.ts'
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
const CHECK_EVERY_MS = 600_000
/** So much of a lease may be counted twice after a power cut. */
const MEASURE_EVERY_MS = 60_000

interface Ended {
  readonly commandId: string
  readonly how: EndingHow
  readonly reason: string
}

export function createIsolation(options: IsolationOptions): Isolation {
  const { firewall, stateFolder, bootClock, clock, logger } = options
  const confirmWithinMs = options.confirmWithinMs ?? CONFIRM_WITHIN_MS
  const rules = createKeptRules(options)
  let record: IsolationRecord | null = null
  /** The record was damaged and rules were found: they stay until a signed release. */
  let orphaned = false
  let capability: FirewallResult = { ok: false, reason: 'it was not looked at yet' }
  let lastEnded: Ended | null = null
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

  /** Resolves with the next change, or when it is `over`. */
  async function nextChange(over: Promise<void>): Promise<void> {
    await Promise.race([over, new Promise<void>((resolve) => waiting.push(resolve))])
  }

  function keep(next: IsolationRecord): void {
    writeRecord(stateFolder, next)
    record = next
  }

  /** Puts the rules in force, and keeps where and for which devices they are. */
  async function putInForce(of: IsolationRecord): Promise<FirewallResult> {
    const put = await rules.put(of)
    if (!put.ok) return put
    const networkNamespace = options.networkNamespace()
    if (of.devices.join() !== put.devices.join() || of.networkNamespace !== networkNamespace) {
      keep({ ...of, devices: [...put.devices], networkNamespace })
    }
    return { ok: true }
  }

  async function keepInForce(of: IsolationRecord, now = false): Promise<FirewallResult> {
    const need = await rules.need(now)
    if (need === null) return { ok: true }
    const put = await putInForce(of)
    if (!put.ok) logger.error({ reason: put.reason }, need)
    return put
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
    rules.forget()
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
    if (!applied.ok) return await undo(before, applied.reason)
    const closedFlows = await firewall.closeFlows(next.controllers, options.ownAddresses())
    changed()
    const reached = next.controllers.map(({ address, port }) => `${address} port ${port}`).join(', ')
    return {
      kind: 'applied',
      reason: `cut off from everything but the controller (${reached})`,
      proof: {
        controllers: reached,
        devices: firewall.devices().join(','),
        rules: rules.digest(),
        receiptAcknowledged: receipt,
        closedFlows,
        leaseMs,
      },
    }
  }

  /** What could not be put in force in whole is not left in part; what stood before goes on standing. */
  async function undo(before: IsolationRecord | null, why: string): Promise<ApplyResult> {
    const reason = `isolation could not be put in force: ${why}`
    if (before?.stage === 'confirmed') {
      keep(before)
      return { kind: 'failed', reason: `${reason}; the one before stays in force`, proof: {} }
    }
    const removed = await firewall.remove()
    if (removed.ok) {
      removeRecord(stateFolder)
      record = null
      rules.forget()
    }
    changed()
    const left = removed.ok ? '' : `; what was begun is still there: ${removed.reason}`
    return { kind: 'failed', reason: `${reason}${left}`, proof: {} }
  }

  async function settled(commandId: string, signal: AbortSignal): Promise<ProbeResult> {
    const over = aborted(signal)
    await Promise.race([started.promise, over])
    while (record?.commandId === commandId && record.stage !== 'confirmed' && !signal.aborted) {
      await nextChange(over)
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
    const inForce = kept.ok && found.digest !== null && found.digest === rules.digest()
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

  async function confirm(signal: AbortSignal, over: Promise<void>): Promise<void> {
    const unanswered = over.then(() => false)
    while (!signal.aborted) {
      const present = record
      if (present?.stage !== 'unconfirmed') {
        await nextChange(over)
        continue
      }
      const leftMs = present.appliedBootMs + confirmWithinMs - bootClock().bootMs
      const askedMs = performance.now()
      const waitMs = Math.min(ROUND_TRIP_MS, leftMs)
      const answered = leftMs > 0 && (await Promise.race([unanswered, options.roundTrip(waitMs)]))
      await inTurn(async () => {
        if (record !== present || signal.aborted) return
        // Rules that are not there were not what the answer came through.
        if (answered && rules.digest() !== null) {
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

  async function watch(signal: AbortSignal, over: Promise<void>): Promise<void> {
    while (!signal.aborted) {
      if (record === null) {
        await nextChange(over)
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
      const over = aborted(signal)
      await inTurn(takeUp)
      started.resolve()
      changed()
      await Promise.all([
        confirm(signal, over),
        watch(signal, over),
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
