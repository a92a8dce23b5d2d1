/** Events that are built by hand, because there are many of them or because they are the agent's own. */
import { CLASS_ACTIVITY } from '../../shared/events/delivery-class.ts'
import type { CordonEvent, EventOf } from '../../shared/events/event.ts'
import { constantsOf, inSchemaOrder } from '../../shared/events/schema-order.ts'
import { TEXT_CHARACTERS_MAX } from '../../shared/protocol/limits.ts'
import type { Actor } from './actors.ts'
import { type Fidelity, fidelityFields, text } from './kernel-text.ts'
import type { FileRecord, LossRecord, SuppressedRecord } from './records.ts'
import { isLink } from './volume/record-actions.ts'

export function fileEventOf(
  record: FileRecord,
  shared: Pick<EventOf<'file-created'>, '@timestamp' | 'event.kind' | 'event.category'>,
  rest: Omit<EventOf<'file-created'>, keyof typeof shared | 'event.type' | 'event.action'>,
  fidelity: Fidelity,
): CordonEvent {
  switch (record.action) {
    case 'creation':
      if (isLink(record)) return linkEvent(record, shared, rest, fidelity)
      return {
        ...shared,
        'event.type': 'creation',
        'event.action': 'file-created',
        ...rest,
        ...repeatedOf(record),
        ...fidelityFields(fidelity),
      }
    case 'modification':
      return {
        ...shared,
        'event.type': 'change',
        'event.action': 'file-modified',
        ...rest,
        ...repeatedOf(record),
        ...fidelityFields(fidelity),
      }
    case 'deletion':
      return {
        ...shared,
        'event.type': 'deletion',
        'event.action': 'file-deleted',
        ...rest,
        ...repeatedOf(record),
        ...fidelityFields(fidelity),
      }
    case 'rename': {
      const previous =
        record.previousPath === null
          ? {}
          : { 'cordon.file.previous_path': text('cordon.file.previous_path', record.previousPath, fidelity) }
      return {
        ...shared,
        'event.type': 'change',
        'event.action': 'file-renamed',
        ...rest,
        ...previous,
        ...fidelityFields(fidelity),
      }
    }
  }
}

function repeatedOf(record: FileRecord) {
  return record.repeated === undefined ? undefined : { 'cordon.file.repeated': record.repeated }
}

/** A second name of a file, or a symbolic link. */
function linkEvent(
  record: FileRecord,
  shared: Pick<EventOf<'file-created'>, '@timestamp' | 'event.kind' | 'event.category'>,
  rest: Omit<EventOf<'file-created'>, keyof typeof shared | 'event.type' | 'event.action'>,
  fidelity: Fidelity,
): EventOf<'file-linked'> {
  const { names } = record
  return inSchemaOrder('file-linked', {
    ...shared,
    'event.type': 'creation',
    'event.action': 'file-linked',
    ...rest,
    'file.type': names?.type === 'symlink' ? 'symlink' : 'file',
    ...(names?.target == null
      ? {}
      : { 'file.target_path': text('file.target_path', names.target, fidelity) }),
    'cordon.file.links': names?.links,
    ...fidelityFields(fidelity),
  })
}

/** Seen, and not told one by one, because there was too much of it or a list says so. */
export function leftOutEvent(record: SuppressedRecord, actor: Actor): EventOf<'gap'> {
  const counts = Object.values(record.counts)
  return inSchemaOrder('gap', {
    '@timestamp': isoTime(record.endedMs),
    ...constantsOf('gap'),
    'cordon.gap.class': CLASS_ACTIVITY,
    'cordon.gap.count': counts.reduce((sum, count) => sum + count, 0),
    'cordon.gap.bytes': null,
    'cordon.gap.started': isoTime(record.startedMs),
    'cordon.gap.ended': isoTime(record.endedMs),
    'event.reason': record.reason.slice(0, TEXT_CHARACTERS_MAX),
    'cordon.gap.actions': record.counts,
    ...actor,
  })
}

export function tamperEvent(timestampMs: number, reason: string, actor: Actor): EventOf<'tamper'> {
  return {
    '@timestamp': isoTime(timestampMs),
    'event.kind': 'alert',
    'event.category': 'host',
    'event.type': 'info',
    'event.action': 'tamper',
    'event.reason': reason,
    ...actor,
  }
}

/** What a sensor lost before it could become events: counted, never silent. */
export function lossEvent(record: LossRecord): EventOf<'gap'> {
  const time = isoTime(record.timestampMs)
  return {
    '@timestamp': time,
    'event.kind': 'event',
    'event.category': 'host',
    'event.type': 'info',
    'event.action': 'gap',
    'cordon.gap.class': record.source.startsWith('file') || record.source.startsWith('fanotify') ? 3 : 2,
    'cordon.gap.count': record.count,
    'cordon.gap.bytes': null,
    'cordon.gap.started': time,
    'cordon.gap.ended': time,
    'event.reason': `${record.source} lost observations`,
    ...(record.actions ? { 'cordon.gap.actions': record.actions } : {}),
  }
}

export function isoTime(timestampMs: number): string {
  return new Date(timestampMs).toISOString()
}
