/** CPU and memory of processes, from /proc. */
import { readdirSync, readFileSync } from 'node:fs'

const TICKS_PER_SECOND = 100

/** CPU seconds (user and system) of a process and its descendants that live. */
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
  // utime and stime, fields 14 and 15 of proc(5).
  return (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / TICKS_PER_SECOND
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    // It ended in between.
    return ''
  }
}
