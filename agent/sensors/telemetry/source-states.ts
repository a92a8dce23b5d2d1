/** From what the layers say of themselves to the sources that the rows of telemetry name. */
import { getSystemErrorMessage } from 'node:util'
import type { SensorStatus } from '../../../shared/protocol/messages.ts'
import type { KernelFeatures } from '../../native/addon.ts'
import type { PamStatus } from '../logons/pam-watch.ts'
import type { SourceState } from './coverage.ts'
import type { Source } from './rows.ts'

const layers: readonly Source[] = [
  'ebpf',
  'audit',
  'ebpf-core',
  'proc-connector',
  'polling',
  'fanotify',
  'chokidar',
  'logon-files',
  'systemd-bus',
]

/** `features` null: the kernel programs do not run. */
export function sourceStates(
  status: readonly SensorStatus[],
  features: KernelFeatures | null,
  pam: PamStatus,
): SourceState[] {
  const byName = new Map(status.map((sensor) => [sensor.name, sensor]))
  const ofLayers = layers.map((source): SourceState => {
    const layer = byName.get(source)
    return { source, inForce: layer?.inForce ?? false, reason: layer?.reason ?? 'not part of this agent' }
  })
  const ebpf = byName.get('ebpf')
  const feature = (source: Source, errno: number | undefined, good: string): SourceState => {
    if (errno === undefined || ebpf?.inForce !== true)
      return { source, inForce: false, reason: ebpf?.reason ?? 'not part of this agent' }
    if (errno === 0) return { source, inForce: true, reason: good }
    return { source, inForce: false, reason: `the kernel refuses it: ${getSystemErrorMessage(-errno)}` }
  }
  const systemCalls = feature('ebpf-system-calls', features?.systemCalls, 'the end of each system call')
  const areProbed = ebpf?.inForce === true && pam.probed > 0
  const probes: SourceState = {
    source: 'pam-probes',
    inForce: areProbed,
    reason: areProbed
      ? `probes in ${pam.probed} ${pam.probed === 1 ? 'library' : 'libraries'} of PAM`
      : ebpf?.inForce === true
        ? (pam.problem ?? 'there is no library of PAM')
        : (ebpf?.reason ?? 'not part of this agent'),
  }
  return [
    ...ofLayers,
    systemCalls,
    feature('ebpf-packets', features?.packets, 'packets as they leave and enter sockets'),
    feature('ebpf-signals', features?.signals, 'signals to the agent'),
    probes,
  ]
}
