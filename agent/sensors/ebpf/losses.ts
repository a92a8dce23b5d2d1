/** What the kernel programs could not hand over, as their counters tell it (`enum counter_slot` in records.h). */
import type { NativeAddon, ProgramsHandle } from '../../native/addon.ts'
import type { LossRecord } from '../records.ts'

const reportIntervalNs = 1e9
const activitySlot = 9

/** By slot: what is lost, and the action of the events that it would have become. */
const slots: ReadonlyMap<number, readonly [what: string, action: string]> = new Map([
  [0, ['exec', 'exec']],
  [1, ['exit', 'exit']],
  [2, ['fork', 'process-info']],
  [3, ['connect', 'connection']],
  [4, ['accept', 'connection-accepted']],
  [5, ['close', 'connection-closed']],
  [6, ['datagram', 'datagram-flow']],
  [7, ['listen', 'socket-listen']],
  [8, ['dns', 'dns-query']],
  [activitySlot + 1, ['raw socket', 'raw-socket']],
  [activitySlot + 2, ['ptrace', 'process-access']],
  [activitySlot + 3, ['process_vm_readv', 'process-access']],
  [activitySlot + 4, ['process_vm_writev', 'process-tampering']],
  [activitySlot + 5, ['file of /proc', 'process-access']],
  [activitySlot + 6, ['device', 'device-read']],
  [activitySlot + 7, ['memory file', 'memory-file-created']],
  [activitySlot + 8, ['library', 'library-loaded']],
  [activitySlot + 9, ['executable memory', 'memory-executable']],
  [activitySlot + 10, ['module load', 'module-loaded']],
  [activitySlot + 11, ['module unload', 'module-unloaded']],
  [activitySlot + 12, ['bpf', 'bpf-used']],
  [activitySlot + 13, ['unshare', 'namespace-changed']],
  [activitySlot + 14, ['setns', 'namespace-changed']],
  [activitySlot + 15, ['clone', 'namespace-changed']],
  [activitySlot + 16, ['mount', 'mount-changed']],
  [activitySlot + 17, ['credentials', 'credentials-changed']],
  [activitySlot + 18, ['attributes', 'file-attributes-changed']],
  [activitySlot + 19, ['script', 'script']],
  [activitySlot + 20, ['signal', 'tamper']],
  [activitySlot + 21, ['logon', 'logon']],
  [40, ['executable memory beyond the first 64 of a process', 'memory-executable']],
])

/** Tells how much the counters grew, at most once a second. */
export function createLossReader(name: string, native: NativeAddon, handle: ProgramsHandle) {
  let told: readonly number[] = []
  let nextNs = 0
  return (nowNs: number, timestampMs: number, add: (record: LossRecord) => void) => {
    if (nowNs < nextNs) return
    nextNs = nowNs + reportIntervalNs
    const counters = native.bpfCounters(handle)
    for (const [slot, [what, action]] of slots) {
      const count = (counters[slot] ?? 0) - (told[slot] ?? 0)
      if (count > 0)
        add({ kind: 'loss', timestampMs, source: `${name}:${what}`, count, actions: { [action]: count } })
    }
    told = counters
  }
}
