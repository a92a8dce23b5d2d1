/** The layers that there are, best first, whether each can work on this host, and what of the telemetry they see. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { SensorStatus } from '../../shared/protocol/messages.ts'
import type { NativeLoad } from '../native/addon.ts'
import type { Platform } from '../platform/platform.ts'
import { type ConfigurationWatch, createConfigurationWatch } from './configuration/configuration-watch.ts'
import { remoteMountPoints } from './configuration/remote-mounts.ts'
import type { EbpfSensor } from './ebpf/ebpf-sensor.ts'
import { toExact } from './exact-path.ts'
import { createFanotifySensor, type FanotifySensor, type RefusedMount } from './fanotify/fanotify-sensor.ts'
import { createMountNamespaces } from './fanotify/mount-namespaces.ts'
import { selectMountPoints } from './fanotify/mounts.ts'
import { probeFanotify } from './fanotify/probe.ts'
import type { ProcessLayerName } from './layer-names.ts'
import type { Chain, Layer } from './layers.ts'
import {
  createLogonFilesSensor,
  type LogonFilesSensor,
  probeLogonFiles,
} from './logons/logon-files-sensor.ts'
import { createPamWatch } from './logons/pam-watch.ts'
import { createFilePollingSensor } from './polling/files.ts'
import { processLayers } from './process-layers.ts'
import type { FileRecord, ProcessKey } from './records.ts'
import { listSafely, readSafely } from './safe-read.ts'
import { createSystemdBusSensor, probeSystemdBus } from './systemd-bus/systemd-bus-sensor.ts'
import type { SourceState } from './telemetry/coverage.ts'
import { sourceStates } from './telemetry/source-states.ts'

export interface SelectOptions {
  readonly settings: {
    readonly sensors: 'auto' | ProcessLayerName
    readonly watchPaths: readonly string[]
  }
  readonly native: NativeLoad
  readonly platform: Platform
  /** The agent's own processes, left out; it may change at any time. */
  readonly ownPids: ReadonlySet<number>
  readonly ownFolders: readonly string[]
  /** Where the watch of the configuration keeps what it saw. */
  readonly stateFolder: string
  readonly clock: () => number
  readonly warn: (reason: string) => void
}

export interface SelectedLayers {
  readonly chains: readonly Chain[]
  /** Names of the layers that will be tried first. */
  readonly best: readonly string[]
  /** Leaves out what this process does, in the kernel where that can be. */
  exclude(process: ProcessKey): void
  /** A process mounted something, or took a namespace of its own: what there is to watch may have changed. */
  noticeMounts(pid: number): void
  /** A record of the file layers, for those who read again what changed. */
  observeFile(record: FileRecord): void
  /** The file layer lost records: what they would have told is looked for. */
  filesLost(): void
  refusedMounts(): readonly RefusedMount[]
  /** `status` as the layers tell it. */
  sources(status: readonly SensorStatus[]): readonly SourceState[]
}

const HOLDERS_MAX = 8
/** Where most of the configuration is: the fallback watches it for those who read it again. */
const configurationFolders = ['/etc', '/var/spool/cron']

const listMountPoints = () => selectMountPoints(readFileSync('/proc/self/mountinfo', 'utf8'))

export function selectLayers(options: SelectOptions): SelectedLayers {
  const { native, platform, clock, ownPids, ownFolders, settings } = options
  const excluded = new Map<number, ProcessKey>()
  const self = platform.readProcess(process.pid)
  if (self) excluded.set(process.pid, self.process)
  const namespaces = createMountNamespaces({ rootsChanged: (prefixes) => containers.set(prefixes) })
  let ebpf: EbpfSensor | null = null
  let drainProcesses: () => void = () => undefined
  let fanotify: FanotifySensor | null = null
  let logonFiles: LogonFilesSensor | null = null
  let configuration: ConfigurationWatch | null = null
  const containers = createContainerRoots(() => configuration)
  const pam = createPamWatch({ roots: namespaces.roots, clock })

  const processes = processLayers({
    best: settings.sensors === 'auto' ? 'ebpf' : settings.sensors,
    native,
    platform,
    ownPids,
    excluded,
    clock,
    created(sensor) {
      drainProcesses = sensor.drainNow
      ebpf = sensor.ebpf
      sensor.ebpf?.watchLogons(pam)
    },
  })
  const files: Layer[] = [
    {
      name: 'fanotify',
      available: mayMark(options),
      create() {
        if (!native.ok) throw new Error(native.reason)
        fanotify = createFanotifySensor({
          native: native.native,
          listMountPoints,
          namespaces,
          clock,
          excludedPids: ownPids,
          beforeHandingUp: () => drainProcesses(),
        })
        return fanotify
      },
    },
    {
      name: 'chokidar',
      available: {
        ok: true,
        reason: `watches ${[...settings.watchPaths, ...configurationFolders].join(', ')}; the writer is known only while it holds the file open`,
      },
      create: () =>
        createFilePollingSensor({
          paths: [...settings.watchPaths, ...configurationFolders],
          ownFolders,
          clock,
          findHolders: (path) => platform.findHolders(path, HOLDERS_MAX).filter((pid) => !ownPids.has(pid)),
        }),
    },
  ]
  const sides: Layer[] = [
    {
      name: 'configuration',
      available: {
        ok: true,
        reason: 'reads accounts, keys, tasks and services again when their files change',
      },
      create() {
        configuration = createConfigurationWatch({
          read: readSafely,
          list: listSafely,
          clock,
          baselinePath: join(options.stateFolder, 'configuration.db'),
          excludedFolders: remoteMountPoints(readFileSync('/proc/self/mountinfo', 'utf8')),
          locate(path) {
            const found = namespaces.translate(path)
            return found === null
              ? null
              : { root: toExact(found.rootPrefix), inside: toExact(found.containerPath) }
          },
          warn: options.warn,
        })
        return configuration
      },
    },
    {
      name: 'logon-files',
      available: probeLogonFiles(),
      create() {
        logonFiles = createLogonFilesSensor({ clock })
        return logonFiles
      },
    },
    {
      name: 'systemd-bus',
      available: probeSystemdBus(),
      create: () => createSystemdBusSensor({ clock }),
    },
  ]
  const chains: Chain[] = [
    { layers: processes, isOptional: false },
    { layers: files, isOptional: false },
    ...sides.map((layer) => ({ layers: [layer], isOptional: true })),
  ]
  return {
    chains,
    best: chains.flatMap(({ layers }) => layers.find((layer) => layer.available.ok)?.name ?? []),
    exclude(process) {
      excluded.set(process.pid, process)
      ebpf?.excludeProcess(process)
    },
    noticeMounts(pid) {
      fanotify?.rescan(pid)
      pam.lookSoon()
    },
    observeFile(record) {
      configuration?.observe(record)
      logonFiles?.observe(record)
    },
    filesLost: () => configuration?.rescan(),
    refusedMounts: () => fanotify?.refusedMounts() ?? [],
    sources: (status) => sourceStates(status, ebpf?.features() ?? null, pam.status()),
  }
}

/** Containers come and go: what each is configured with is read once, one of them at a time. */
function createContainerRoots(watch: () => ConfigurationWatch | null) {
  const known = new Set<string>()
  return {
    set(prefixes: readonly string[]) {
      const present = new Set(prefixes)
      for (const prefix of known) {
        if (present.has(prefix)) continue
        known.delete(prefix)
        watch()?.removeRoot(toExact(prefix))
      }
      for (const prefix of present) {
        if (known.has(prefix)) continue
        known.add(prefix)
        setImmediate(() => {
          if (known.has(prefix)) watch()?.addRoot(toExact(prefix))
        })
      }
    },
  }
}

function mayMark({ settings, native }: SelectOptions): Layer['available'] {
  if (settings.sensors === 'polling') return { ok: false, reason: 'the setting `sensors` says polling' }
  if (!native.ok) return { ok: false, reason: native.reason }
  const probed = probeFanotify()
  return probed.ok ? { ok: true, reason: 'whole file systems, with the writing process' } : probed
}
