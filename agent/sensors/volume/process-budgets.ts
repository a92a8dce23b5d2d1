/**
 * What each process may still tell, and what of it was left out. A budget fills up again with time (a token
 * bucket), and rare things pass although it is spent: a flood of one kind must not hide the first of another.
 */
import type { EventAction } from '../../../shared/events/event.ts'
import type { SuppressedRecord } from '../records.ts'
import { VOLUME_GROUPS, type VolumeGroup } from './record-actions.ts'
import type { PathOwner } from './repeats.ts'
import type { ProcessRules } from './telemetry-matcher.ts'

export interface Budget {
  readonly perSecond: number
  readonly burst: number
}
export type Budgets = { readonly [Group in VolumeGroup]: Budget }

interface Bucket {
  left: number
  filledMs: number
}

export interface ProcessState extends PathOwner {
  startTicks: number | null
  /** Null: nothing was spent yet. */
  readonly buckets: { [Group in VolumeGroup]: Bucket | null }
  /** Of the lists in force; null when they must be looked up. */
  rules: ProcessRules | null
  /** How often something passed although the budget was spent, by action and by folder. */
  passed: Map<string, number> | null
  suppressed: Map<EventAction, number> | null
  suppressedStartMs: number
  suppressedEndMs: number
  tellMs: number
  usedMs: number
}

/** The first of each action, and of each folder, pass although the budget is spent. */
const rarePassesMax = 16
/** Actions and folders that are told apart; a flood over many folders passes no more than this many times that. */
const rareKeysMax = 256

export function createProcessState(pid: number, nowMs: number): ProcessState {
  return {
    pid,
    startTicks: null,
    heldPlaces: 0,
    buckets: { file: null, network: null, activity: null },
    rules: null,
    passed: null,
    suppressed: null,
    suppressedStartMs: 0,
    suppressedEndMs: 0,
    tellMs: 0,
    usedMs: nowMs,
  }
}

/** Takes one from the budget. False when it is spent, unless `mayOwe`: then it is paid back later. */
export function spend(
  state: ProcessState,
  group: VolumeGroup,
  budget: Budget,
  nowMs: number,
  mayOwe = false,
): boolean {
  let bucket = state.buckets[group]
  if (bucket === null) {
    bucket = { left: budget.burst, filledMs: nowMs }
    state.buckets[group] = bucket
  } else if (bucket.filledMs !== nowMs) {
    const added = ((nowMs - bucket.filledMs) * budget.perSecond) / 1_000
    bucket.left = Math.min(budget.burst, bucket.left + added)
    bucket.filledMs = nowMs
  }
  if (bucket.left < 1 && !mayOwe) return false
  // Debts are bounded, or a process that repeats itself would tell nothing new for hours.
  bucket.left = Math.max(bucket.left - 1, -budget.burst)
  return true
}

/** Whether it is rare enough to pass: each key (an action, a folder) does a number of times. */
export function passesAsRare(state: ProcessState, key: string): boolean {
  state.passed ??= new Map()
  const times = state.passed.get(key)
  if (times === undefined ? state.passed.size >= rareKeysMax : times >= rarePassesMax) return false
  state.passed.set(key, (times ?? 0) + 1)
  return true
}

export function suppress(state: ProcessState, action: EventAction, timestampMs: number): void {
  if (state.suppressed === null) {
    state.suppressed = new Map()
    state.suppressedStartMs = timestampMs
  }
  state.suppressedEndMs = timestampMs
  state.suppressed.set(action, (state.suppressed.get(action) ?? 0) + 1)
}

/** What was left out since the last time; null when nothing was. */
export function takeSuppressed(state: ProcessState, reason: string): SuppressedRecord | null {
  if (state.suppressed === null) return null
  const record: SuppressedRecord = {
    kind: 'suppressed',
    timestampMs: state.suppressedEndMs,
    process: state.pid < 0 ? null : { pid: state.pid, startTicks: state.startTicks },
    counts: Object.fromEntries(state.suppressed),
    // Wall clocks are set back: the time that is told never runs backwards.
    startedMs: Math.min(state.suppressedStartMs, state.suppressedEndMs),
    endedMs: state.suppressedEndMs,
    reason,
  }
  state.suppressed = null
  return record
}

export function budgetsText(budgets: Budgets): string {
  const each = VOLUME_GROUPS.map((group) => `${group} ${budgets[group].perSecond}/s`).join(', ')
  return `more than one process may tell (${each}): the rest is counted`
}
