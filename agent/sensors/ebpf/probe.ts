/** Whether this host lets the agent use its kernel programs, and if not, what is missing. */
import { accessSync, constants, readFileSync } from 'node:fs'
import { release } from 'node:os'
import type { NativeAddon } from '../../native/addon.ts'

export type EbpfProbe = { readonly ok: true } | { readonly ok: false; readonly reason: string }

/** The generated loader relocates the programs inside the kernel, which began with this version. */
const kernelVersionMin = { major: 5, minor: 17 }
/** Bits of capabilities(7). */
const capabilities = { sysAdmin: 21n, perfmon: 38n, bpf: 39n }

interface Sources {
  readonly typesPath?: string
  readonly statusPath?: string
  readonly kernelRelease?: string
}

/** Asks for what loading needs, without loading, which takes most of a second. Never throws. */
export function probeEbpf(native: Pick<NativeAddon, 'bpfProbe'>, sources: Sources = {}): EbpfProbe {
  const { typesPath = '/sys/kernel/btf/vmlinux', statusPath = '/proc/self/status' } = sources
  const kernelRelease = sources.kernelRelease ?? release()
  if (isTooOld(kernelRelease)) {
    return refuse(
      `the kernel ${kernelRelease} is older than ${kernelVersionMin.major}.${kernelVersionMin.minor}`,
    )
  }
  if (!isReadable(typesPath)) {
    return refuse(`the kernel has no type information (${typesPath} is missing; CONFIG_DEBUG_INFO_BTF)`)
  }
  const missing = missingCapabilities(statusPath)
  if (missing !== '') return refuse(`the agent lacks ${missing}: run it as root`)
  try {
    native.bpfProbe()
  } catch (error) {
    return refuse(
      `the kernel refuses BPF to the agent: ${error instanceof Error ? error.message : String(error)}`,
    )
  }
  return { ok: true }
}

function refuse(reason: string): EbpfProbe {
  return { ok: false, reason }
}

function isTooOld(kernelRelease: string): boolean {
  const [, major, minor] = kernelRelease.match(/^(\d+)\.(\d+)/) ?? []
  if (major === undefined || minor === undefined) return false
  if (Number(major) !== kernelVersionMin.major) return Number(major) < kernelVersionMin.major
  return Number(minor) < kernelVersionMin.minor
}

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK)
    return true
  } catch {
    return false
  }
}

/** Names what the process cannot do, or '' when it can, or when /proc does not say. */
function missingCapabilities(statusPath: string): string {
  const status = isReadable(statusPath) ? readFileSync(statusPath, 'utf8') : ''
  const effective = status.match(/^CapEff:\s*([0-9a-f]+)$/m)?.[1]
  if (effective === undefined) return ''
  const has = (bit: bigint) => ((BigInt(`0x${effective}`) >> bit) & 1n) === 1n
  if (has(capabilities.sysAdmin)) return ''
  const missing = [has(capabilities.bpf) ? '' : 'CAP_BPF', has(capabilities.perfmon) ? '' : 'CAP_PERFMON']
  return missing.filter((text) => text !== '').join(' and ')
}
