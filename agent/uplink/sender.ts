/**
 * Sends the buffer's rows over one connection: which class is next, how many batches are unanswered, what
 * happens with a batch that is refused.
 *
 * Invariants: never more unanswered batches than credits; class 0 goes before everything else, so that a gap
 * event is there before the rows that follow on the gap; every answer returns the credit of one batch.
 */
import {
  CLASS_ACTIVITY,
  CLASS_CRITICAL,
  CLASS_DETECTION,
  CLASS_PROCESS,
  type EventClass,
} from '../../shared/events/delivery-class.ts'
import { encodeBatch } from '../../shared/node/batch.ts'
import type { Logger } from '../../shared/node/logger.ts'
import { BATCH_BYTES_MAX, BATCH_ROWS_MAX, BUFFERED_BYTES_MAX } from '../../shared/protocol/limits.ts'
import type { ControllerMessage } from '../../shared/protocol/messages.ts'
import type { EventBuffer } from '../buffer/buffer.ts'
import type { Refusals } from './refusals.ts'

type Acknowledgement = Extract<ControllerMessage, { kind: 'acknowledgement' }>
type BatchRefused = Extract<ControllerMessage, { kind: 'batchRefused' }>

export type SendingBuffer = Pick<
  EventBuffer,
  'streamId' | 'lease' | 'acknowledge' | 'rewind' | 'setAside' | 'waiting' | 'tellLosses' | 'watermarks'
>

export interface SenderOptions {
  readonly buffer: SendingBuffer
  readonly credits: number
  readonly refusals: Refusals
  /** Hands a frame to the socket; `done` when it left the socket's queue. */
  readonly write: (frame: Uint8Array, done: () => void) => void
  readonly queuedBytes: () => number
  /** The connection must end: what was agreed at its start no longer holds. */
  readonly reconnect: (reason: string, kind: 'fresh' | 'backOff') => void
  readonly logger: Logger
  /** Milliseconds on a clock that never steps back. */
  readonly monotonic?: () => number
  readonly coalesceMs?: number
  readonly answerTimeoutMs?: number
}

export interface Sender {
  /** New rows may wait. */
  wake(): void
  /** Null, or what the controller did that it must not. */
  acknowledged(message: Acknowledgement): string | null
  refused(message: BatchRefused): string | null
  stop(): void
  readonly inFlight: number
  readonly sentBatches: number
}

interface InFlight {
  readonly class: EventClass
  readonly first: number
  readonly last: number
  readonly sentMs: number
  /** A batch before it was refused, so this one will be too: it is sent again behind that one. */
  stale: boolean
}

/** Rows of classes 2 and 3 wait this long for company, unless they fill a batch. */
const COALESCE_MS = 250
/** A controller that answers pings and no batches is of no use. */
const ANSWER_TIMEOUT_MS = 120_000
/** Every so many batches the class that waited longest is served, whatever its worth. */
const FAIR_TURN = 4
const SHARED_CLASSES = [CLASS_DETECTION, CLASS_PROCESS, CLASS_ACTIVITY] as const

export function createSender(options: SenderOptions): Sender {
  const { buffer, credits, refusals, logger } = options
  const monotonic = options.monotonic ?? (() => performance.now())
  const coalesceMs = options.coalesceMs ?? COALESCE_MS
  const answerTimeoutMs = options.answerTimeoutMs ?? ANSWER_TIMEOUT_MS
  const { streamId } = buffer
  const inFlight: InFlight[] = []
  const lastSentMs = [0, 0, 0, 0].map(() => Number.NEGATIVE_INFINITY)
  const cutShort = [false, false, false, false]
  const sentUpTo = [0, 0, 0, 0]
  let turn = 0
  let sentBatches = 0
  let timer: NodeJS.Timeout | null = null
  let soon: NodeJS.Immediate | null = null
  let stopped = false

  /** When rows of the class may go: now, later, or never without news. */
  const dueInMs = (eventClass: EventClass, nowMs: number): number => {
    const waiting = buffer.waiting(eventClass)
    if (waiting === 0) return Number.POSITIVE_INFINITY
    const pausedMs = refusals.pausedUntilMs(eventClass) - nowMs
    const isUrgent = eventClass <= CLASS_DETECTION || waiting >= BATCH_ROWS_MAX || cutShort[eventClass]
    const companyMs = isUrgent ? 0 : (lastSentMs[eventClass] ?? 0) + coalesceMs - nowMs
    return Math.max(0, pausedMs, companyMs)
  }

  /** The class to serve, or in how many milliseconds there may be one. */
  const choose = (nowMs: number): EventClass | { readonly inMs: number } => {
    const criticalMs = dueInMs(CLASS_CRITICAL, nowMs)
    if (criticalMs === 0) return CLASS_CRITICAL
    // Nothing overtakes class 0, also not while it pauses after a refusal: a gap may be among its rows.
    if (criticalMs < Number.POSITIVE_INFINITY) return { inMs: criticalMs }
    const due = SHARED_CLASSES.filter((eventClass) => dueInMs(eventClass, nowMs) === 0)
    const [first] = due
    if (first === undefined) {
      return { inMs: Math.min(...SHARED_CLASSES.map((eventClass) => dueInMs(eventClass, nowMs))) }
    }
    if (turn % FAIR_TURN !== FAIR_TURN - 1) return first
    return due.reduce((a, b) => ((lastSentMs[b] ?? 0) < (lastSentMs[a] ?? 0) ? b : a))
  }

  const sendBatch = (eventClass: EventClass, nowMs: number): void => {
    const lease = buffer.lease(eventClass, BATCH_ROWS_MAX, BATCH_BYTES_MAX)
    if (!lease) {
      cutShort[eventClass] = false
      return
    }
    if (lease.streamId !== streamId) {
      options.reconnect('the buffer began a new stream', 'fresh')
      return
    }
    const { firstSequence: first, lastSequence: last, previousHash, lastHash, bodies } = lease
    const frame = encodeBatch(
      { streamId, class: eventClass, firstSequence: first, previousHash, lastHash },
      bodies,
    )
    inFlight.push({ class: eventClass, first, last, sentMs: nowMs, stale: false })
    lastSentMs[eventClass] = nowMs
    cutShort[eventClass] = lease.full
    sentUpTo[eventClass] = Math.max(sentUpTo[eventClass] ?? 0, last)
    turn += 1
    sentBatches += 1
    options.write(frame, wake)
  }

  /** One batch, then the event loop: a long backlog must not hold up the sensors. */
  const step = (): void => {
    soon = null
    if (stopped || inFlight.length >= credits || options.queuedBytes() > BUFFERED_BYTES_MAX) return
    if (timer) clearTimeout(timer)
    timer = null
    buffer.tellLosses()
    const nowMs = monotonic()
    const chosen = choose(nowMs)
    if (typeof chosen === 'number') {
      sendBatch(chosen, nowMs)
      wake()
    } else if (chosen.inMs < Number.POSITIVE_INFINITY) {
      timer = setTimeout(wake, Math.ceil(chosen.inMs))
    }
  }
  const wake = (): void => {
    if (!stopped) soon ??= setImmediate(step)
  }

  const watchAnswers = setInterval(() => {
    const [oldest] = inFlight
    if (oldest && monotonic() - oldest.sentMs > answerTimeoutMs) {
      options.reconnect('the controller does not answer batches', 'backOff')
    }
  }, answerTimeoutMs / 4)

  const refusedBatch = (batch: InFlight, message: BatchRefused): void => {
    for (const later of inFlight) {
      if (later.class === batch.class) later.stale = true
    }
    const verdict = refusals.strike(batch.class, message.code, monotonic())
    const { class: eventClass, first, last } = batch
    logger.warn(
      { class: eventClass, first, last, code: message.code, reason: message.reason, verdict },
      'a batch was refused',
    )
    switch (verdict) {
      case 'setAside':
        buffer.setAside(
          eventClass,
          first,
          last,
          `the controller refused them: ${message.code}: ${message.reason}`,
        )
        buffer.rewind(eventClass, last)
        // No gap event can tell the controller of a hole in the class that carries the gap events; a hello can.
        if (eventClass === CLASS_CRITICAL) options.reconnect('events of class 0 were set aside', 'fresh')
        break
      case 'reconnect':
        options.reconnect(`the controller refuses batches: ${message.code}: ${message.reason}`, 'backOff')
        break
      case 'again':
        buffer.rewind(eventClass, Math.min(first, message.expectedSequence) - 1)
        break
    }
    wake()
  }

  return {
    wake,
    acknowledged(message) {
      const eventClass = message.class as EventClass
      if (message.streamId !== streamId) return 'it acknowledges another stream'
      const known = buffer.watermarks()[eventClass]?.acknowledged ?? 0
      if (message.sequence > Math.max(sentUpTo[eventClass] ?? 0, known))
        return 'it acknowledges what was not sent'
      const answered = inFlight.findIndex(
        (batch) => batch.class === eventClass && batch.last <= message.sequence,
      )
      if (answered >= 0) inFlight.splice(answered, 1)
      if (message.sequence > known) {
        refusals.forgive(eventClass)
        buffer.acknowledge(eventClass, message.sequence)
      }
      wake()
      return null
    },
    refused(message) {
      if (message.streamId !== streamId) return 'it refuses a batch of another stream'
      const index = inFlight.findIndex(
        (batch) => batch.class === message.class && batch.first === message.firstSequence,
      )
      const [batch] = index >= 0 ? inFlight.splice(index, 1) : []
      if (!batch) return 'it refuses a batch that was not sent'
      if (batch.stale) wake()
      else refusedBatch(batch, message)
      return null
    },
    stop() {
      stopped = true
      clearInterval(watchAnswers)
      if (timer) clearTimeout(timer)
      if (soon) clearImmediate(soon)
    },
    get inFlight() {
      return inFlight.length
    },
    get sentBatches() {
      return sentBatches
    },
  }
}
