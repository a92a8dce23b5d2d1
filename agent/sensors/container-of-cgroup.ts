/** Which container a process is in, by the name of its cgroup: every runtime writes its container's id there. */
import type { CONTAINER_RUNTIMES } from '../../shared/events/fields.ts'

export interface Container {
  readonly id: string
  readonly runtime: (typeof CONTAINER_RUNTIMES)[number]
}

/** Nearest folder first. An id is 64 hexadecimal digits (OCI runtimes), or the name that was given. */
const scopes: readonly (readonly [pattern: RegExp, runtime: Container['runtime']])[] = [
  [/^docker-([0-9a-f]{64})\.scope$/, 'docker'],
  [/^cri-containerd-([0-9a-f]{64})\.scope$/, 'containerd'],
  [/^crio-([0-9a-f]{64})(?:\.scope)?$/, 'crio'],
  [/^libpod-([0-9a-f]{64})(?:\.scope)?$/, 'podman'],
  [/^lxc\.payload\.(.{1,64})$/, 'lxc'],
  [/^systemd-nspawn@(.{1,64})\.service$/, 'nspawn'],
  [/^machine-(.{1,64})\.scope$/, 'nspawn'],
  [/^(?:[a-z]+-)?([0-9a-f]{64})(?:\.scope)?$/, 'other'],
]
const parents: Readonly<Record<string, Container['runtime']>> = {
  docker: 'docker',
  containerd: 'containerd',
  libpod_parent: 'podman',
  lxc: 'lxc',
}
const REMEMBERED_MAX = 4_096

/** Remembers what it found: hosts have few cgroups and many processes. */
export function createContainerFinder(): (cgroup: string) => Container | null {
  const known = new Map<string, Container | null>()
  return (cgroup) => {
    if (cgroup === '' || cgroup === '/') return null
    const before = known.get(cgroup)
    if (before !== undefined) return before
    const found = containerOf(cgroup)
    if (known.size >= REMEMBERED_MAX) known.clear()
    known.set(cgroup, found)
    return found
  }
}

function containerOf(cgroup: string): Container | null {
  const folders = cgroup.split('/')
  for (let index = folders.length - 1; index >= 0; index -= 1) {
    // systemd writes what a unit name may not hold as \xNN.
    const name = (folders[index] ?? '').replace(/\\x([0-9a-f]{2})/g, (_, hex: string) =>
      String.fromCharCode(Number.parseInt(hex, 16)),
    )
    for (const [pattern, runtime] of scopes) {
      const id = pattern.exec(name)?.[1]
      if (id !== undefined)
        return { id, runtime: runtime === 'other' ? runtimeAbove(folders, index) : runtime }
    }
    if (folders[index - 1] === 'lxc' && name !== '') return { id: name.slice(0, 64), runtime: 'lxc' }
  }
  return null
}

/** Without a prefix the id stands in a folder of the runtime's. */
function runtimeAbove(folders: readonly string[], index: number): Container['runtime'] {
  const above = folders.slice(0, index)
  for (const folder of above.reverse()) {
    const runtime = parents[folder]
    if (runtime !== undefined) return runtime
    if (folder.startsWith('kubepods')) return 'containerd'
  }
  return 'other'
}
