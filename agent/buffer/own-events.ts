/** The events that the buffer makes of itself: what was lost, and what was done to its file. */
import type { EventClass } from '../../shared/events/delivery-class.ts'
import type { EventOf } from '../../shared/events/event.ts'
import { TEXT_CHARACTERS_MAX } from '../../shared/protocol/limits.ts'

export interface Loss {
  readonly class: EventClass
  /** Sequences of the class, first and last; absent when the events never had one. */
  readonly range?: { readonly from: number; readonly to: number }
  /** Null: nobody could count them. */
  readonly count: number | null
  readonly bytes: number | null
  readonly startedMs: number
  readonly endedMs: number
  readonly reason: string
}

export function gapEvent(loss: Loss, nowMs: number): EventOf<'gap'> {
  return {
    '@timestamp': timestamp(nowMs),
    'event.kind': 'event',
    'event.category': 'host',
    'event.type': 'info',
    'event.action': 'gap',
    'cordon.gap.class': loss.class,
    ...(loss.range ? { 'cordon.gap.from': loss.range.from, 'cordon.gap.to': loss.range.to } : {}),
    'cordon.gap.count': loss.count,
    'cordon.gap.bytes': loss.bytes,
    'cordon.gap.started': timestamp(loss.startedMs),
    'cordon.gap.ended': timestamp(loss.endedMs),
    'event.reason': loss.reason.slice(0, TEXT_CHARACTERS_MAX),
  }
}

export function tamperEvent(reason: string, nowMs: number): EventOf<'tamper'> {
  return {
    '@timestamp': timestamp(nowMs),
    'event.kind': 'alert',
    'event.category': 'host',
    'event.type': 'info',
    'event.action': 'tamper',
    'event.reason': reason.slice(0, TEXT_CHARACTERS_MAX),
  }
}

/** Times that no calendar has (a clock gone wild) are told as the nearest that one has. */
function timestamp(ms: number): string {
  return new Date(Math.min(Math.max(0, Math.trunc(ms) || 0), 253_402_300_799_999)).toISOString()
}
