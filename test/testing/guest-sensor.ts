/**
 * Runs inside a guest, as a program of its own: observes with the kernel programs while the command behind it runs,
 * and prints what they told as JSON, one record a line; the first line says whether they are there at all. Its first
 * argument names the kinds of records that are printed, by commas: the serial line is slow.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { loadNative } from '../../agent/native/addon.ts'
import { findUnifiedCgroup, readHostNamespaces } from '../../agent/platform/linux/host.ts'
import { createEbpfSensor } from '../../agent/sensors/ebpf/ebpf-sensor.ts'
import { probeEbpf } from '../../agent/sensors/ebpf/probe.ts'
import type { SensorRecord } from '../../agent/sensors/records.ts'

/** After the command's end, until all that it did is drained. */
const DRAIN_MS = 1_000

const [kinds = '', addonPath = '', program = '', ...words] = process.argv.slice(2)
const printed: ReadonlySet<string> = new Set(kinds.split(','))
const loaded = loadNative(addonPath)
const cgroupPath = findUnifiedCgroup()
const cgroup = cgroupPath === null ? {} : { cgroupPath }
const probe = loaded.ok ? probeEbpf(loaded.native) : loaded
print(probe)
if (loaded.ok && probe.ok)
  await observe(createEbpfSensor({ native: loaded.native, ...cgroup, hostNamespaces: readHostNamespaces() }))

async function observe(sensor: ReturnType<typeof createEbpfSensor>): Promise<void> {
  const stop = new AbortController()
  const records: SensorRecord[] = []
  const attached = Promise.withResolvers<void>()
  const running = sensor.run((batch) => records.push(...batch), stop.signal, attached.resolve)
  await Promise.race([attached.promise, running])
  const command = spawn(program, words, { stdio: 'ignore' })
  await once(command, 'exit')
  await sleep(DRAIN_MS)
  stop.abort()
  await running
  // What this program does itself is not what is asked for.
  const isOwn = (record: SensorRecord) => 'process' in record && record.process?.pid === process.pid
  for (const record of records) if (printed.has(record.kind) && !isOwn(record)) print(record)
}

function print(value: unknown): void {
  const text = JSON.stringify(value, (_, part) => (typeof part === 'bigint' ? String(part) : part))
  process.stdout.write(`${text}\n`)
}
