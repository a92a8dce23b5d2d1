/** Events that the agent tells about itself. */
import type { EventOf } from '../../shared/events/event.ts'

export function agentStarted(
  version: string,
  bootId: string,
  sensors: readonly string[],
  nowMs: number,
): EventOf<'agent-started'> {
  return {
    '@timestamp': new Date(nowMs).toISOString(),
    'event.kind': 'event',
    'event.category': 'host',
    'event.type': 'start',
    'event.action': 'agent-started',
    'agent.version': version,
    'host.boot.id': bootId,
    'cordon.sensors': sensors.slice(0, 16),
  }
}

export function agentStopped(reason: string, nowMs: number): EventOf<'agent-stopped'> {
  return {
    '@timestamp': new Date(nowMs).toISOString(),
    'event.kind': 'event',
    'event.category': 'host',
    'event.type': 'end',
    'event.action': 'agent-stopped',
    'event.reason': reason.slice(0, 1_024),
  }
}

/** Something touched the agent, its start or its data. */
export function tampered(reason: string, nowMs: number): EventOf<'tamper'> {
  return {
    '@timestamp': new Date(nowMs).toISOString(),
    'event.kind': 'alert',
    'event.category': 'host',
    'event.type': 'info',
    'event.action': 'tamper',
    'event.reason': reason.slice(0, 1_024),
  }
}

export function sensorChanged(
  change: { readonly name: string; readonly inForce: boolean; readonly reason: string },
  nowMs: number,
): EventOf<'sensor-changed'> {
  return {
    '@timestamp': new Date(nowMs).toISOString(),
    'event.kind': 'event',
    'event.category': 'host',
    'event.type': 'change',
    'event.action': 'sensor-changed',
    'cordon.sensor.name': change.name,
    'cordon.sensor.in_force': change.inForce,
    'event.reason': change.reason.slice(0, 1_024),
  }
}
