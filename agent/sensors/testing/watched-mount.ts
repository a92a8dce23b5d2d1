/** A small file system of a test's own, and the events that the kernel layers make of all that happens meanwhile. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CordonEvent } from '../../../shared/events/event.ts'
import { loadBuiltAddon } from '../../native/testing/compile.ts'
import { selectPlatform } from '../../platform/platform.ts'
import { createEbpfSensor } from '../ebpf/ebpf-sensor.ts'
import { createEventBuilder } from '../event-builder.ts'
import { createFanotifySensor } from '../fanotify/fanotify-sensor.ts'
import { createProcessTable } from '../process-table.ts'
import type { SensorRecord } from '../records.ts'
import { unmount } from './unmount.ts'

const DRAIN_INTERVAL_MS = 5

export interface WatchedMount extends AsyncDisposable {
  readonly path: string
  /** Of processes on the whole host, and of files on this mount; grows while it is watched. */
  readonly events: readonly CordonEvent[]
}

/** As root. Resolves once the kernel programs are attached. */
export async function watchMount(): Promise<WatchedMount> {
  const found = selectPlatform()
  if (!found.ok) throw new Error(found.reason)
  const { platform } = found
  const path = mkdtempSync(join(tmpdir(), 'cordon-watched-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'cordon-test', path])
  const table = createProcessTable({
    agentId: 'a'.repeat(32),
    bootId: platform.readBootId(),
    bootTimeMs: platform.readBootTimeMs(),
    clock: Date.now,
    readProcess: platform.readProcess,
  })
  const builder = createEventBuilder({
    table,
    knownHash: () => undefined,
    userName: () => undefined,
    ownPids: new Set(),
    ownFolders: [],
    isOwnPlace: () => false,
    clock: Date.now,
    readSetting: platform.readSetting,
  })
  const events: CordonEvent[] = []
  const sink = (batch: readonly SensorRecord[]) => {
    for (const { event } of builder.build(batch)) events.push(event)
  }
  const native = loadBuiltAddon()
  const processes = createEbpfSensor({ native, drainIntervalMs: DRAIN_INTERVAL_MS })
  const files = createFanotifySensor({
    native,
    listMountPoints: () => [path],
    drainIntervalMs: DRAIN_INTERVAL_MS,
    beforeHandingUp: processes.drainNow,
  })
  const stop = new AbortController()
  const attached = Promise.withResolvers<void>()
  const ended = Promise.all([
    processes.run(sink, stop.signal, attached.resolve),
    files.run(sink, stop.signal, () => undefined),
  ])
  await Promise.race([attached.promise, ended])
  return {
    path,
    events,
    async [Symbol.asyncDispose]() {
      stop.abort()
      await ended
      unmount(path)
      rmdirSync(path)
    },
  }
}
