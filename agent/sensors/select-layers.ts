/** The layers that there are, best first, and whether each can work on this host. */
import { readFileSync } from 'node:fs'
import type { NativeLoad } from '../native/addon.ts'
import type { Platform } from '../platform/platform.ts'
import { createEbpfSensor, type EbpfSensor } from './ebpf/ebpf-sensor.ts'
import { probeEbpf } from './ebpf/probe.ts'
import { createFanotifySensor, type FanotifySensor, type RefusedMount } from './fanotify/fanotify-sensor.ts'
import { createMountNamespaces } from './fanotify/mount-namespaces.ts'
import { selectMountPoints } from './fanotify/mounts.ts'
import type { Layer } from './layers.ts'
import { createFilePollingSensor } from './polling/files.ts'
import { createPollingSensor } from './polling/processes.ts'
import type { ProcessKey } from './records.ts'

export interface SelectOptions {
  readonly settings: { readonly sensors: 'auto' | 'polling'; readonly watchPaths: readonly string[] }
  readonly native: NativeLoad
  readonly platform: Pick<
    Platform,
    'readProcess' | 'findHolders' | 'translatePid' | 'readHostNamespaces' | 'findUnifiedCgroup'
  >
  /** The agent's own processes, left out; it may change at any time. */
  readonly ownPids: ReadonlySet<number>
  readonly ownFolders: readonly string[]
  readonly clock: () => number
}

export interface SelectedLayers {
  /** One chain for processes and connections, one for files. */
  readonly chains: readonly (readonly Layer[])[]
  /** Names of the layers that will be tried first. */
  readonly best: readonly string[]
  /** Leaves out what this process does, in the kernel where that can be. */
  exclude(process: ProcessKey): void
  /** A process mounted something, or took a namespace of its own: what there is to watch may have changed. */
  noticeMounts(pid: number): void
  refusedMounts(): readonly RefusedMount[]
}

const HOLDERS_MAX = 8

const listMountPoints = () => selectMountPoints(readFileSync('/proc/self/mountinfo', 'utf8'))

export function selectLayers(options: SelectOptions): SelectedLayers {
  const { native, platform, clock, ownPids, ownFolders } = options
  const excluded = new Map<number, ProcessKey>()
  const self = platform.readProcess(process.pid)
  if (self) excluded.set(process.pid, self.process)
  let ebpf: EbpfSensor | null = null
  let fanotify: FanotifySensor | null = null
  const namespaces = createMountNamespaces()

  const processes: Layer[] = [
    {
      name: 'ebpf',
      available: availability(
        options,
        (addon) => probeEbpf(addon),
        'every exec, exit and outbound connection, by kernel programs',
      ),
      create() {
        if (!native.ok) throw new Error(native.reason)
        const cgroupPath = platform.findUnifiedCgroup()
        ebpf = createEbpfSensor({
          native: native.native,
          clock,
          excluded: [...excluded.values()],
          hostNamespaces: platform.readHostNamespaces(),
          translatePid: platform.translatePid,
          ...(cgroupPath === null ? {} : { cgroupPath }),
        })
        return ebpf
      },
    },
    {
      name: 'polling',
      available: { ok: true, reason: 'looks once a second: what lives less is missed' },
      create: () => createPollingSensor({ readProcess: platform.readProcess, clock }),
    },
  ]
  const files: Layer[] = [
    {
      name: 'fanotify',
      available: availability(options, () => mayMark(), 'whole file systems, with the writing process'),
      create() {
        if (!native.ok) throw new Error(native.reason)
        fanotify = createFanotifySensor({
          native: native.native,
          listMountPoints,
          namespaces,
          clock,
          excludedPids: ownPids,
          beforeHandingUp: () => ebpf?.drainNow(),
        })
        return fanotify
      },
    },
    {
      name: 'chokidar',
      available: {
        ok: true,
        reason: `watches ${options.settings.watchPaths.join(', ')}; the writer is known only while it holds the file open`,
      },
      create: () =>
        createFilePollingSensor({
          paths: options.settings.watchPaths,
          ownFolders,
          clock,
          findHolders: (path) => platform.findHolders(path, HOLDERS_MAX).filter((pid) => !ownPids.has(pid)),
        }),
    },
  ]
  const chains = [processes, files]
  return {
    chains,
    best: chains.flatMap((chain) => chain.find((layer) => layer.available.ok)?.name ?? []),
    exclude(process) {
      excluded.set(process.pid, process)
      ebpf?.excludeProcess(process)
    },
    noticeMounts: (pid) => fanotify?.rescan(pid),
    refusedMounts: () => fanotify?.refusedMounts() ?? [],
  }
}

/** Marks on file systems need CAP_SYS_ADMIN (fanotify_init(2)), which in practice is root. */
function mayMark(): { readonly ok: true } | { readonly ok: false; readonly reason: string } {
  return process.geteuid?.() === 0
    ? { ok: true }
    : { ok: false, reason: 'the agent lacks CAP_SYS_ADMIN: run it as root' }
}

function availability(
  options: SelectOptions,
  probe: (
    addon: Extract<NativeLoad, { ok: true }>['native'],
  ) => { readonly ok: true } | { readonly ok: false; readonly reason: string },
  good: string,
): Layer['available'] {
  if (options.settings.sensors === 'polling')
    return { ok: false, reason: 'the setting `sensors` says polling' }
  if (!options.native.ok) return { ok: false, reason: options.native.reason }
  const probed = probe(options.native.native)
  return probed.ok ? { ok: true, reason: good } : probed
}
