/** Whether this host lets the agent use its kernel programs, and if not, what is missing. */
import { accessSync, constants } from 'node:fs'
import { release } from 'node:os'
import type { NativeAddon } from '../../native/addon.ts'
import { type Capability, lackOf, missingCapabilities } from '../capabilities.ts'

export type EbpfProbe = { readonly ok: true } | { readonly ok: false; readonly reason: string }

/** The generated loader relocates the programs inside the kernel, which began with this version. */
const kernelVersionMin = { major: 5, minor: 17 }

interface Sources {
  readonly typesPath?: string
  readonly statusPath?: string
  readonly kernelRelease?: string
}

/** Asks for what loading needs, without loading, which takes most of a second. Never throws. */
export function probeEbpf(native: Pick<NativeAddon, 'bpfProbe'>, sources: Sources = {}): EbpfProbe {
  const { typesPath = '/sys/kernel/btf/vmlinux', statusPath } = sources
  const kernelRelease = sources.kernelRelease ?? release()
  if (isTooOld(kernelRelease)) {
    return refuse(
      `the kernel ${kernelRelease} is older than ${kernelVersionMin.major}.${kernelVersionMin.minor}`,
    )
  }
  if (!isReadable(typesPath)) {
    return refuse(`the kernel has no type information (${typesPath} is missing; CONFIG_DEBUG_INFO_BTF)`)
  }
  const missing = missingRights(statusPath)
  if (missing.length > 0) return refuse(lackOf(missing))
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

/** What the process cannot do. CAP_SYS_ADMIN stands for both, as before Linux 5.8. */
function missingRights(statusPath: string | undefined): readonly Capability[] {
  if (missingCapabilities(['CAP_SYS_ADMIN'], statusPath).length === 0) return []
  return missingCapabilities(['CAP_BPF', 'CAP_PERFMON'], statusPath)
}
