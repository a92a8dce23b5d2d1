/**
 * One commit of what is pending: makes room, numbers, chains and inserts in one transaction, and notes what found
 * no room in the same one. What it throws has changed nothing.
 */
import { CLASS_CRITICAL, EVENT_CLASSES, type EventClass } from '../../shared/events/delivery-class.ts'
import type { Delivery } from './delivery.ts'
import type { Loss } from './own-events.ts'
import { lossOf, type Pending } from './pending.ts'
import type { Room } from './room.ts'
import type { BufferRows, PendingRow } from './rows.ts'
import type { SpacePlan } from './size.ts'

const FULL_REASON = 'the buffer was full of events that are worth more'
const HELD_REASON = 'another program read the buffer file for so long that its log took the cap'

export interface CommitTarget {
  readonly rows: BufferRows
  readonly room: Room
  readonly delivery: Delivery
}

export interface CommitContext {
  readonly plan: SpacePlan
  readonly pending: Pending
  readonly clock: () => number
  /** Somebody reads from an old state of the file, and the log that keeps it has taken the cap. */
  readonly logIsHeld: boolean
  /** Bytes of pages that classes 1 to 3 may come to: less than the plan says while the disk is full. */
  readonly ordinaryBytes: number
}

/** Nothing can be written until a reader lets go of the log. */
class LogHeld extends Error {
  override readonly message = 'another program holds the log of the buffer file'
}

/** Events of class 0 alone fill the cap. */
export class CapReached extends Error {
  override readonly message = 'the cap is full of events that may never be dropped'
}

/** Commits the pending rows of the classes and all that was lost. Returns how many events were dropped for it. */
export function commitGroup(
  target: CommitTarget,
  classes: readonly EventClass[],
  context: CommitContext,
): number {
  const { rows, room, delivery } = target
  const { pending, clock } = context
  if (context.logIsHeld) {
    giveUpOrdinary(pending)
    if (pending.rowsOf(CLASS_CRITICAL).length === 0) throw new LogHeld()
  }
  const droppedBefore = room.droppedRows
  const lost: Loss[] = []
  try {
    rows.transact(clock(), () => {
      for (const eventClass of classes) lost.push(...writeClass(target, eventClass, context))
      for (const loss of [...pending.losses(), ...lost]) room.noteLoss(loss)
      room.retire(delivery.leased)
    })
  } catch (error) {
    room.droppedRows = droppedBefore
    throw error
  }
  const droppedRows = room.droppedRows - droppedBefore
  if (droppedRows + lost.length + pending.losses().length > 0) delivery.noteLosses()
  for (const eventClass of classes) pending.remove(eventClass, pending.rowsOf(eventClass).length)
  pending.clearLosses()
  return droppedRows + lost.reduce((sum, loss) => sum + (loss.count ?? 0), 0)
}

/** Returns what found no room. */
function writeClass(target: CommitTarget, eventClass: EventClass, context: CommitContext): Loss[] {
  const { rows, room, delivery } = target
  const { plan, pending, ordinaryBytes } = context
  const limitBytes = eventClass === CLASS_CRITICAL ? plan.criticalBytes : ordinaryBytes
  const lost: Loss[] = []
  for (const group of groupsOf(pending.rowsOf(eventClass), plan.groupBytes)) {
    const bytes = group.reduce((sum, row) => sum + row.body.length, 0)
    if (room.make(eventClass, bytes, group.length, delivery.leased, limitBytes))
      rows.append(eventClass, group)
    else if (eventClass !== CLASS_CRITICAL) lost.push(lossOf(eventClass, group, FULL_REASON))
    else throw new CapReached()
  }
  return lost
}

/** Pending events of classes 1 to 3 become losses, which stay in memory until they can be written. */
function giveUpOrdinary(pending: Pending): void {
  for (const eventClass of EVENT_CLASSES) {
    const rows = pending.rowsOf(eventClass)
    if (eventClass === CLASS_CRITICAL || rows.length === 0) continue
    pending.lose(lossOf(eventClass, rows, HELD_REASON))
    pending.remove(eventClass, rows.length)
  }
}

/** Cuts the rows into groups of at most `bytesMax` UTF-16 units, so that room is made for one at a time. */
function* groupsOf(rows: readonly PendingRow[], bytesMax: number): Generator<readonly PendingRow[]> {
  let start = 0
  let bytes = 0
  for (let index = 0; index < rows.length; index += 1) {
    const length = rows[index]?.body.length ?? 0
    if (index > start && bytes + length > bytesMax) {
      yield rows.slice(start, index)
      start = index
      bytes = 0
    }
    bytes += length
  }
  if (start < rows.length) yield rows.slice(start)
}
