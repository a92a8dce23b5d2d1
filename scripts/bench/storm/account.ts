/**
 * Compares what a storm made with what the controller's store holds of it. Everything is counted in one unit, the
 * action as an event tells it:
 *
 * - `made`: what the generator did, by action: a process is one `exec` and one `exit`, a connection is one
 *   `connection`, one `connection-accepted` and, at each end, one `connection-closed`, a file is one `file-created`,
 *   one `file-modified` and one `file-deleted`. The kernel merges what one process does to one name while nobody
 *   fetched it: a write that follows on its creation so is told with it, by one event. Such writes are one action
 *   with their creation and not made apart; `merged` says how many. They are the writes that are neither seen nor
 *   in a gap, so a write that is lost looks like one that was merged: the storm whose writers are other processes
 *   than the creators, in which the kernel merges nothing, is there to tell the two apart.
 * - `seen`: events of the storm's own processes, and for each the times that it stands for (`cordon.file.repeated`).
 * - `gap`: `cordon.gap.actions` of gap events: those that name one of the storm's processes, and those that name
 *   nobody, because a layer or the buffer lost them before anybody looked whose they were. On a host on which
 *   others work, theirs are among the latter. Events whose folder was gone are never the storm's: its own stays.
 * - `unaccounted`: made - seen - gap. Above 0: lost in silence. Below: told twice.
 */
import { CLASS_OF_ACTION } from '../../../shared/events/delivery-class.ts'
import type { EventAction } from '../../../shared/events/event.ts'

export type Counts = Partial<Record<EventAction, number>>

export interface Expected {
  readonly made: Counts
  /** Actions that the kernel may tell with another action's event. */
  readonly mergeable?: EventAction
}

const FOLDER_GONE = 'fanotify:folder-gone lost observations'

export type Fields = Readonly<Record<string, unknown>>

export interface Account {
  readonly made: number
  readonly seen: number
  readonly gap: number
  readonly unaccounted: number
  /** Told with another action's event, and so not in `made`. */
  readonly merged: number
  /** Of `gap`, what names no process, by the reason that is told. */
  readonly gapOfNobody: Readonly<Record<string, number>>
  /** Of `seen`, what events stand for besides themselves. */
  readonly repeated: number
  /** Gap events that say that something was lost and not how much. */
  readonly uncounted: number
  readonly unaccountedByAction: Counts
}

/** `seen` holds events of the storm alone, `gaps` all gap events since it began. */
export function accountFor(
  expected: Expected,
  isOfStorm: (pid: number) => boolean,
  seen: readonly Fields[],
  gaps: readonly Fields[],
): Account {
  const told: Counts = {}
  let repeated = 0
  for (const event of seen) {
    const times = Number(event['cordon.file.repeated'] ?? 0)
    repeated += times
    add(told, event['event.action'] as EventAction, 1 + times)
  }
  const { counts, ofNobody, unnamed, uncounted } = sumOfGaps(expected, isOfStorm, gaps)
  const made: Counts = { ...expected.made }
  const { mergeable } = expected
  let merged = 0
  if (mergeable !== undefined) {
    merged = Math.max(0, (made[mergeable] ?? 0) - (told[mergeable] ?? 0) - (counts[mergeable] ?? 0))
    add(made, mergeable, -merged)
  }
  const unaccountedByAction: Counts = {}
  for (const action of actionsOf(made))
    unaccountedByAction[action] = (made[action] ?? 0) - (told[action] ?? 0) - (counts[action] ?? 0)
  return {
    made: sum(made),
    seen: sum(told),
    gap: sum(counts) + unnamed,
    unaccounted: sum(unaccountedByAction) - unnamed,
    merged,
    gapOfNobody: ofNobody,
    repeated,
    uncounted,
    unaccountedByAction,
  }
}

function sumOfGaps(expected: Expected, isOfStorm: (pid: number) => boolean, gaps: readonly Fields[]) {
  const counts: Counts = {}
  const classes = new Set<unknown>(actionsOf(expected.made).map((action) => CLASS_OF_ACTION[action]))
  const ofNobody: Record<string, number> = {}
  let unnamed = 0
  let uncounted = 0
  for (const gap of gaps) {
    const pid = gap['process.pid']
    const reason = String(gap['event.reason'])
    if (reason === FOLDER_GONE || (typeof pid === 'number' && !isOfStorm(pid))) continue
    let count = 0
    const actions = gap['cordon.gap.actions'] as Counts | undefined
    if (actions === undefined) {
      // The buffer's own, which knows classes alone.
      if (!classes.has(gap['cordon.gap.class'])) continue
      if (typeof gap['cordon.gap.count'] === 'number') count = gap['cordon.gap.count']
      else uncounted += 1
      unnamed += count
    } else {
      for (const action of actionsOf(expected.made)) {
        add(counts, action, actions[action] ?? 0)
        count += actions[action] ?? 0
      }
    }
    if (pid === undefined && count > 0) ofNobody[reason] = (ofNobody[reason] ?? 0) + count
  }
  return { counts, ofNobody, unnamed, uncounted }
}

function actionsOf(counts: Counts): EventAction[] {
  return Object.keys(counts) as EventAction[]
}

function add(counts: Counts, action: EventAction, count: number): void {
  counts[action] = (counts[action] ?? 0) + count
}

function sum(counts: Counts): number {
  return Object.values(counts).reduce((total, count) => total + count, 0)
}
