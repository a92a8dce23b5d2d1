/** CPU and memory of processes, from /proc. */
import { readdirSync, readFileSync } from 'node:fs'

const TICKS_PER_SECOND = 100

/** CPU seconds (user and system) of a process and all that it started, also of what has ended since. */
export function cpuSeconds(pid: number): number {
  return processTree(pid).reduce((sum, one) => sum + ownCpuSeconds(one), 0)
}

/** Resident bytes of a process and its descendants. */
export function residentBytes(pid: number): number {
  return processTree(pid).reduce((sum, one) => {
    const kibibytes = /^VmRSS:\s+(\d+) kB$/m.exec(read(`/proc/${one}/status`))?.[1]
    return sum + Number(kibibytes ?? 0) * 1_024
  }, 0)
}

/** Busy CPU seconds of the whole machine since boot. */
export function machineCpuSeconds(): number {
  const [, user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] =
    read('/proc/stat').split('\n')[0]?.split(/\s+/).map(Number) ?? []
  return (user + nice + system + irq + softirq) / TICKS_PER_SECOND
}

/** The process, its children, their children: processes that the program started. */
export function processTree(pid: number): number[] {
  const children = new Map<number, number[]>()
  for (const name of readdirSync('/proc')) {
    const child = Number(name)
    if (!Number.isInteger(child)) continue
    const text = read(`/proc/${child}/stat`)
    const parent = Number(text.slice(text.lastIndexOf(') ') + 2).split(' ')[1])
    children.set(parent, [...(children.get(parent) ?? []), child])
  }
  const tree = [pid]
  for (const one of tree) tree.push(...(children.get(one) ?? []))
  return tree
}

function ownCpuSeconds(pid: number): number {
  const text = read(`/proc/${pid}/stat`)
  const fields = text.slice(text.lastIndexOf(') ') + 2).split(' ')
  // Fields 14 to 17 of proc(5): utime, stime, and the same of children that ended and were waited for.
  const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0)
  return ticks / TICKS_PER_SECOND
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    // It ended in between.
    return ''
  }
}
