/** What tells of processes and of what they do, best first, and whether each can work on this host. */
import type { NativeAddon, NativeLoad } from '../native/addon.ts'
import type { Platform } from '../platform/platform.ts'
import { createAuditSensor } from './audit/audit-sensor.ts'
import { probeAudit } from './audit/probe.ts'
import { createEbpfSensor, type EbpfSensor } from './ebpf/ebpf-sensor.ts'
import { probeEbpf } from './ebpf/probe.ts'
import { PROCESS_LAYERS, type ProcessLayerName } from './layer-names.ts'
import type { Layer } from './layers.ts'
import { createPollingSensor } from './polling/processes.ts'
import { probeProcConnector } from './proc-connector/probe.ts'
import { createProcConnectorSensor } from './proc-connector/proc-connector-sensor.ts'
import type { ProcessKey } from './records.ts'

export interface ProcessLayersOptions {
  readonly best: ProcessLayerName
  readonly native: NativeLoad
  readonly platform: Pick<
    Platform,
    | 'readProcess'
    | 'readStat'
    | 'listStats'
    | 'translatePid'
    | 'readHostNamespaces'
    | 'findUnifiedCgroup'
    | 'readUprobeType'
  >
  /** The agent's own processes; it may change at any time. */
  readonly ownPids: ReadonlySet<number>
  readonly excluded: ReadonlyMap<number, ProcessKey>
  readonly clock: () => number
  /** Told of the one that runs, which others fetch from before they hand up what they saw. */
  readonly created: (sensor: { drainNow(): void; ebpf: EbpfSensor | null }) => void
}

/** On a file system that a boot empties: what it holds is of this boot. */
const auditStatePath = '/run/cordon/audit-state.json'

type Available = Layer['available']

export function processLayers(options: ProcessLayersOptions): Layer[] {
  const { native, platform, clock, ownPids } = options
  const states = { readStat: platform.readStat, listStats: platform.listStats }
  const check = (
    name: ProcessLayerName,
    good: string,
    probe: (addon: NativeAddon) => Available,
  ): Available => {
    if (PROCESS_LAYERS.indexOf(name) < PROCESS_LAYERS.indexOf(options.best))
      return { ok: false, reason: `the setting \`sensors\` says ${options.best}` }
    if (!native.ok) return { ok: false, reason: native.reason }
    const probed = probe(native.native)
    return probed.ok && good !== '' ? { ok: true, reason: good } : probed
  }
  const addon = () => {
    if (!native.ok) throw new Error(native.reason)
    return native.native
  }
  const ebpf = (coreOnly: boolean) => {
    const cgroupPath = platform.findUnifiedCgroup()
    const sensor = createEbpfSensor({
      native: addon(),
      clock,
      coreOnly,
      excluded: [...options.excluded.values()],
      hostNamespaces: platform.readHostNamespaces(),
      translatePid: platform.translatePid,
      uprobeType: platform.readUprobeType(),
      ...(cgroupPath === null ? {} : { cgroupPath }),
    })
    options.created({ drainNow: sensor.drainNow, ebpf: sensor })
    return sensor
  }
  const ebpfProbe = (found: NativeAddon): Available => {
    const probed = probeEbpf(found)
    return probed.ok ? { ok: true, reason: '' } : probed
  }
  return [
    {
      name: 'ebpf',
      available: check('ebpf', 'processes and what they do, by kernel programs', ebpfProbe),
      create: () => ebpf(false),
    },
    {
      name: 'audit',
      available: check('audit', '', probeAudit),
      create() {
        const sensor = createAuditSensor({
          native: addon(),
          states,
          clock,
          excludedPids: ownPids,
          protectedPids: () => [...ownPids],
          statePath: auditStatePath,
        })
        options.created({ drainNow: sensor.drainNow, ebpf: null })
        return sensor
      },
    },
    {
      name: 'ebpf-core',
      available: check(
        'ebpf-core',
        'every exec, exit and outbound connection, by kernel programs',
        ebpfProbe,
      ),
      create: () => ebpf(true),
    },
    {
      name: 'proc-connector',
      available: check(
        'proc-connector',
        'every exec and exit; arguments of what lives long enough',
        (found) => {
          const probed = probeProcConnector(found)
          return probed.ok ? { ok: true, reason: '' } : probed
        },
      ),
      create: () =>
        createProcConnectorSensor({
          native: addon(),
          states,
          clock,
          readProcess: platform.readProcess,
          excludedPids: ownPids,
        }),
    },
    {
      name: 'polling',
      available: { ok: true, reason: 'looks once a second: what lives less is missed' },
      create: () => createPollingSensor({ readProcess: platform.readProcess, clock }),
    },
  ]
}
