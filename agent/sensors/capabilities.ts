/** What this process may do, as the kernel tells it: being root is not enough where somebody took rights away. */
import { readFileSync } from 'node:fs'

/** Bits of capabilities(7). */
const bits = { CAP_DAC_READ_SEARCH: 2n, CAP_SYS_ADMIN: 21n, CAP_PERFMON: 38n, CAP_BPF: 39n } as const

export type Capability = keyof typeof bits

const statusPathDefault = '/proc/self/status'

/** Those that the process lacks; none when /proc does not say: then the kernel's refusal tells. */
export function missingCapabilities(
  wanted: readonly Capability[],
  statusPath = statusPathDefault,
): readonly Capability[] {
  const effective = readStatus(statusPath).match(/^CapEff:\s*([0-9a-f]+)$/m)?.[1]
  if (effective === undefined) return []
  const held = BigInt(`0x${effective}`)
  return wanted.filter((name) => ((held >> bits[name]) & 1n) === 0n)
}

/** The reason that `status` shows, with the mend. */
export function lackOf(missing: readonly Capability[]): string {
  const mend = 'run it as root, and leave it this right where it runs as a service or in a container'
  return `the agent lacks ${missing.join(' and ')}: ${mend}`
}

function readStatus(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}
