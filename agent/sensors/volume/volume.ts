/**
 * Between the layers and the event builder: makes a storm cheap, and loses nothing in silence. Each record that
 * comes in is handed on, told as a repeat of one that was (`repeated`), or counted in a `suppressed` record.
 *
 * Pass in any number: `fork`, `exec` and `exit`, because all that a process does is joined to them and a program
 * that starts programs pays more for each than the agent does, so that the kernel bounds their rate (a fork bomb
 * without exec makes no events at all); `tamper`, `logon` and `configuration`, because they are what an attacker
 * would want to be lost in a flood; and what says that something was lost.
 */
import type { EventAction } from '../../../shared/events/event.ts'
import { createElapsed } from '../elapsed.ts'
import type { FileRecord, RecordSink, SensorRecord } from '../records.ts'
import {
  type Budgets,
  budgetsText,
  type ProcessState,
  passesAsRare,
  spend,
  suppress,
  takeSuppressed,
} from './process-budgets.ts'
import { createProcessFacts } from './process-facts.ts'
import { actionOf, groupOf, isLink, isMeasured, type MeasuredRecord } from './record-actions.ts'
import { createRepeats, keyOf } from './repeats.ts'
import { createRuleDrops } from './rule-drops.ts'
import { createStateTable } from './state-table.ts'
import { findRule, type ProcessFacts, type TelemetryMatcher } from './telemetry-matcher.ts'

export interface VolumeOptions {
  readonly sink: RecordSink
  /** Milliseconds, best of a clock that nobody sets (`performance.now`); one that is set back does no harm. */
  readonly clock: () => number
  readonly budgets?: Budgets
  /** How long the same is the same. */
  readonly windowMs?: number
  /** Paths by process that are remembered: a power of two. */
  readonly pathsMax?: number
  readonly processesMax?: number
  /** Processes that were there before their records came, for lists that ask who it is. */
  readonly lookUpProcess?: (pid: number) => ProcessFacts | null
  /** What is done to the agent itself: no rule drops it. */
  readonly concernsAgent?: (record: MeasuredRecord) => boolean
  /** A file whose writing is not told: what it holds now is still to be examined. */
  readonly examine?: (record: FileRecord) => void
}

export interface Volume {
  /** Never throws and never blocks. What is handed on is handed on before it returns. */
  readonly accept: RecordSink
  /** The lists in force from now on; null: none. */
  setLists(matcher: TelemetryMatcher | null): void
  /** Hands on what is due. `run` calls it. */
  tick(): void
  /** Hands on all that is held and counted. */
  finish(): void
  /** Whether something waits for `tick`. */
  readonly isWaiting: () => boolean
  /** Calls `tick` while something waits, and `finish` once `signal` aborts. On a quiet host it sleeps. */
  run(signal: AbortSignal): Promise<void>
}

const defaultBudgets: Budgets = {
  file: { perSecond: 2_000, burst: 10_000 },
  network: { perSecond: 1_000, burst: 5_000 },
  activity: { perSecond: 200, burst: 2_000 },
}
const tellIntervalMs = 1_000
const tickMs = 250
/** Stands for all processes that nobody knows. */
const nobody = -1

export function createVolume(options: VolumeOptions): Volume {
  const { sink, budgets = defaultBudgets, windowMs = 2_000, pathsMax = 16_384 } = options
  const { processesMax = 8_192, lookUpProcess = () => null, examine = () => undefined } = options
  const { concernsAgent = () => false } = options
  const reason = budgetsText(budgets)
  const elapsed = createElapsed(options.clock)
  const facts = createProcessFacts(lookUpProcess)
  const drops = createRuleDrops()
  /** Processes of which something was left out a short time ago. */
  const suppressing = new Set<ProcessState>()
  let matcher: TelemetryMatcher | null = null
  let nowMs = elapsed()
  let out: SensorRecord[] = []
  let wake: () => void = () => undefined

  const repeats = createRepeats<ProcessState>(windowMs, pathsMax, (record, state) => {
    // Held records are bounded by the table, so they are told on credit: the last write is never lost.
    spend(state, 'file', budgets.file, nowMs, true)
    out.push(record)
  })
  const states = createStateTable(processesMax, release)

  /** What is held and counted of a process that ended, or for which there is no room. */
  function release(state: ProcessState): void {
    repeats.releaseAll(state)
    tellSuppressed(state)
    suppressing.delete(state)
  }

  function tellSuppressed(state: ProcessState): boolean {
    const record = takeSuppressed(state, reason)
    if (record !== null) out.push(record)
    return record !== null
  }

  function leaveOut(state: ProcessState, action: EventAction, record: MeasuredRecord): void {
    suppress(state, action, record.timestampMs)
    if (!suppressing.has(state)) {
      suppressing.add(state)
      state.tellMs = nowMs + tellIntervalMs
    }
    if (record.kind === 'file' && record.contentComplete) examine(record)
  }

  /** Whether it is told although, or because, there is room in the budget. */
  function mayTell(state: ProcessState, action: EventAction, record: MeasuredRecord): boolean {
    const group = groupOf(record)
    if (spend(state, group, budgets[group], nowMs)) return true
    return passesAsRare(state, action) || (record.kind === 'file' && passesAsRare(state, folderOf(record)))
  }

  function measured(record: MeasuredRecord): void {
    const pid = (record.kind === 'file' ? record.pid : record.process?.pid) ?? nobody
    const state = states.get(pid, nowMs)
    const action = actionOf(record)
    if (matcher !== null) {
      state.rules ??= matcher.rulesFor(pid === nobody ? null : facts.find(pid))
      const rule = findRule(state.rules, action, record)
      if (rule?.verdict === 'drop' && !concernsAgent(record)) {
        drops.count(rule.name, action, record.timestampMs, nowMs)
        if (record.kind === 'file' && record.contentComplete) examine(record)
        return
      }
      if (rule?.verdict === 'always') {
        if (record.kind === 'file') repeats.releasePath(state, record)
        out.push(record)
        return
      }
    }
    if (record.kind === 'file' && record.action !== 'rename' && !isLink(record)) {
      repeatable(state, action, record)
    } else if (mayTell(state, action, record)) {
      if (record.kind === 'file') repeats.releasePath(state, record)
      out.push(record)
    } else {
      leaveOut(state, action, record)
    }
  }

  function repeatable(state: ProcessState, action: EventAction, record: FileRecord & MeasuredRecord): void {
    if (repeats.hold(state, record, nowMs)) return
    if (!mayTell(state, action, record)) {
      leaveOut(state, action, record)
      return
    }
    repeats.releasePath(state, record)
    out.push(record)
    repeats.told(state, record, nowMs)
  }

  function one(record: SensorRecord): void {
    if (isMeasured(record)) {
      measured(record)
      return
    }
    if (record.kind === 'fork' || record.kind === 'exec' || record.kind === 'exit') started(record)
    out.push(record)
  }

  /** A process that begins or ends: what is held under its pid is of the one before, or complete. */
  function started(record: Extract<SensorRecord, { kind: 'fork' | 'exec' | 'exit' }>): void {
    if (record.kind === 'fork') facts.fork(record)
    else if (record.kind === 'exec') facts.exec(record)
    const state = states.find(record.process.pid)
    if (state === undefined) return
    if (record.kind === 'exec') {
      state.rules = null
      state.startTicks = record.process.startTicks
      return
    }
    if (record.kind === 'exit') state.startTicks = record.process.startTicks
    states.remove(state)
  }

  function due(): void {
    repeats.expire(nowMs)
    for (const state of suppressing) {
      if (state.tellMs > nowMs) continue
      state.tellMs = nowMs + tellIntervalMs
      if (!tellSuppressed(state)) suppressing.delete(state)
    }
    for (const record of drops.takeDue(nowMs)) out.push(record)
  }

  function handOn(): void {
    if (out.length === 0) return
    const batch = out
    out = []
    sink(batch)
  }

  const isWaiting = () => !repeats.isEmpty() || suppressing.size > 0 || drops.isWaiting()
  const tick = () => {
    nowMs = elapsed()
    due()
    handOn()
  }
  const finish = () => {
    nowMs = elapsed()
    states.clear()
    for (const record of drops.takeAll()) out.push(record)
    handOn()
  }

  return {
    accept(records) {
      nowMs = elapsed()
      for (const record of records) one(record)
      due()
      handOn()
      wake()
    },
    setLists(next) {
      matcher = next
      states.forgetRules()
      for (const record of drops.takeAll()) out.push(record)
      handOn()
    },
    tick,
    finish,
    isWaiting,
    run(signal) {
      return new Promise((resolve) => {
        let timer: NodeJS.Timeout | undefined
        wake = () => {
          if (timer !== undefined || !isWaiting()) return
          timer = setTimeout(() => {
            timer = undefined
            tick()
            wake()
          }, tickMs)
        }
        const end = () => {
          wake = () => undefined
          clearTimeout(timer)
          finish()
          resolve()
        }
        if (signal.aborted) return end()
        signal.addEventListener('abort', end, { once: true })
        wake()
      })
    },
  }
}

function folderOf(record: FileRecord): string {
  const key = keyOf(record)
  return key.slice(0, key.lastIndexOf('/') + 1)
}
