/** Events as sensors make them, for tests and measurements. */
import type { CordonEvent, EventOf } from '../../../shared/events/event.ts'

const SECOND_MS = 1_000

export function execEvent(index: number, commandLine = `/bin/true ${index}`): EventOf<'exec'> {
  return {
    '@timestamp': timestampOf(index),
    'event.kind': 'event',
    'event.category': 'process',
    'event.type': 'start',
    'event.action': 'exec',
    'process.entity_id': `0a1b2c3d.11223344.${1_000 + index}.${99_000 + index}`,
    'process.pid': 1_000 + index,
    'process.executable': '/usr/bin/true',
    'process.command_line': commandLine,
  }
}

export function fileEvent(index: number): EventOf<'file-created'> {
  return {
    '@timestamp': timestampOf(index),
    'event.kind': 'event',
    'event.category': 'file',
    'event.type': 'creation',
    'event.action': 'file-created',
    'file.path': `/tmp/some/folder/file-${index}`,
  }
}

export function detectionEvent(index: number): EventOf<'detection'> {
  return {
    '@timestamp': timestampOf(index),
    'event.kind': 'alert',
    'event.category': 'threat',
    'event.type': 'indicator',
    'event.action': 'detection',
    'cordon.detection.id': index.toString(16).padStart(32, '0'),
    'cordon.detection.engine': 'sigma',
    'cordon.detection.severity': 'high',
    'cordon.detection.matched': { 'process.executable': '/usr/bin/true' },
    'rule.id': 'a-rule',
    'rule.name': 'A rule',
    'cordon.detection.event_action': 'exec',
  }
}

export function stoppedEvent(index: number): EventOf<'agent-stopped'> {
  return {
    '@timestamp': timestampOf(index),
    'event.kind': 'event',
    'event.category': 'host',
    'event.type': 'end',
    'event.action': 'agent-stopped',
    'event.reason': `stop ${index}`,
  }
}

/** One event of the given class. */
export function eventOfClass(eventClass: number, index: number): CordonEvent {
  const makers = [stoppedEvent, detectionEvent, execEvent, fileEvent] as const
  return (makers[eventClass] ?? fileEvent)(index)
}

function timestampOf(index: number): string {
  return new Date(1_700_000_000_000 + index * SECOND_MS).toISOString()
}
