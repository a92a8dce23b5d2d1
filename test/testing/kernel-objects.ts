/**
 * What processes hold in the kernel beyond memory: programs, maps and links of eBPF, and fanotify groups, by the
 * ids that the kernel gives them and never gives again while it runs.
 */
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

export interface KernelObjects {
  readonly programs: ReadonlySet<number>
  readonly maps: ReadonlySet<number>
  readonly links: ReadonlySet<number>
  readonly fanotifyGroups: number
}

const KINDS = { programs: ['prog', 'prog_id'], maps: ['map', 'map_id'], links: ['link', 'link_id'] } as const

/** As the descriptors of these processes tell (proc(5), fdinfo). */
export function heldBy(pids: readonly number[]): KernelObjects {
  const held = { programs: new Set<number>(), maps: new Set<number>(), links: new Set<number>() }
  let fanotifyGroups = 0
  for (const pid of pids) {
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      const { target, info } = describe(pid, fd)
      if (target === 'anon_inode:[fanotify]') fanotifyGroups += 1
      for (const [kind, [, field]] of Object.entries(KINDS)) {
        const id = new RegExp(`^${field}:\\s+(\\d+)$`, 'm').exec(info)?.[1]
        // A link tells the id of its program, too, which lives as long as it does.
        if (id !== undefined) held[kind as keyof typeof KINDS].add(Number(id))
      }
    }
  }
  return { ...held, fanotifyGroups }
}

/** Of objects that were held before, those that the kernel still has. */
export function stillThere(before: KernelObjects): string[] {
  return Object.entries(KINDS).flatMap(([kind, [noun]]) => {
    const listed: { id: number }[] = JSON.parse(
      execFileSync('bpftool', ['-j', noun, 'list'], { encoding: 'utf8' }),
    )
    const now = new Set(listed.map(({ id }) => id))
    return [...before[kind as keyof typeof KINDS]].filter((id) => now.has(id)).map((id) => `${noun} ${id}`)
  })
}

/** A descriptor may be closed between the listing and the look. */
function describe(pid: number, fd: string): { readonly target: string; readonly info: string } {
  try {
    return {
      target: readlinkSync(`/proc/${pid}/fd/${fd}`),
      info: readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'),
    }
  } catch {
    return { target: '', info: '' }
  }
}
