/** Events that are built by hand, because there are many of them or because they are the agent's own. */
import type { CordonEvent, EventOf } from '../../shared/events/event.ts'
import type { Actor } from './actors.ts'
import { type Fidelity, fidelityFields, text } from './kernel-text.ts'
import type { FileRecord, LossRecord } from './records.ts'

export function fileEventOf(
  record: FileRecord,
  shared: Pick<EventOf<'file-created'>, '@timestamp' | 'event.kind' | 'event.category'>,
  rest: Omit<EventOf<'file-created'>, keyof typeof shared | 'event.type' | 'event.action'>,
  fidelity: Fidelity,
): CordonEvent {
  switch (record.action) {
    case 'creation':
      return {
        ...shared,
        'event.type': 'creation',
        'event.action': 'file-created',
        ...rest,
        ...fidelityFields(fidelity),
      }
    case 'modification':
      return {
        ...shared,
        'event.type': 'change',
        'event.action': 'file-modified',
        ...rest,
        ...fidelityFields(fidelity),
      }
    case 'deletion':
      return {
        ...shared,
        'event.type': 'deletion',
        'event.action': 'file-deleted',
        ...rest,
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
