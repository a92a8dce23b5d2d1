/** A root of files in a temporary folder with a watch on it, fed by the test in place of a file layer. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { Compile } from 'typebox/compile'
import { expect, vi } from 'vitest'
import { EVENT_SCHEMAS } from '../../../../shared/events/event.ts'
import type { ConfigurationChange, ConfigurationRecord, FileRecord, SensorRecord } from '../../records.ts'
import { listSafely, readSafely } from '../../safe-read.ts'
import {
  type ConfigurationWatch,
  type ConfigurationWatchOptions,
  createConfigurationWatch,
} from '../configuration-watch.ts'

export const ACTOR_PID = 4_321

export function createRootFolder() {
  const root = mkdtempSync(join(tmpdir(), 'cordon-configuration-'))
  return {
    root,
    at: (path: string) => root + path,
    put(path: string, content: string | Buffer, mode = 0o644) {
      mkdirSync(dirname(root + path), { recursive: true })
      writeFileSync(root + path, content, { mode })
    },
    remove: () => rmSync(root, { recursive: true, force: true }),
  }
}

export async function startWatch(
  root: string,
  {
    created,
    ...options
  }: Partial<ConfigurationWatchOptions> & { readonly created?: (watch: ConfigurationWatch) => void } = {},
) {
  const records: ConfigurationRecord[] = []
  const stop = new AbortController()
  const attached = Promise.withResolvers<void>()
  const watch = createConfigurationWatch({
    read: readSafely,
    list: listSafely,
    clock: Date.now,
    root,
    limits: { intervalMs: 20, settleMs: 60, rescanIntervalMs: 50 },
    ...options,
  })
  created?.(watch)
  const add = (batch: readonly SensorRecord[]) => {
    for (const record of batch) if (record.kind === 'configuration') records.push(record)
  }
  const ended = watch.run(add, stop.signal, attached.resolve)
  await Promise.race([attached.promise, ended])
  return {
    watch,
    records,
    /** Hands in a record as the file layers do; the path is inside the root. */
    tell(path: string, action: FileRecord['action'] = 'modification', more: Partial<FileRecord> = {}) {
      watch.observe({
        kind: 'file',
        timestampMs: 1_700_000_000_000,
        pid: ACTOR_PID,
        action,
        path: root + path,
        previousPath: null,
        contentComplete: action === 'creation' || action === 'modification',
        ...more,
      })
    },
    /** Waits for so many changes; then gives all, each proved to be an event that the schema takes. */
    async changes(count: number): Promise<ConfigurationChange[]> {
      await vi.waitFor(() => expect(records.length).toBeGreaterThanOrEqual(count), 5_000)
      return checked(records)
    },
    async stop(): Promise<ConfigurationChange[]> {
      stop.abort()
      await ended
      return checked(records)
    },
  }
}

function checked(records: readonly ConfigurationRecord[]): ConfigurationChange[] {
  return records.map(({ change }) => {
    expectEvent(change)
    return change
  })
}

/** What the event builder adds, and then the schema's word. */
export function expectEvent(change: ConfigurationChange): void {
  const schema = EVENT_SCHEMAS[change['event.action']]
  const properties: Readonly<Record<string, object>> = schema.properties
  const constants = ['event.kind', 'event.category', 'event.type'].flatMap((name) => {
    const property = properties[name]
    return property !== undefined && 'const' in property ? [[name, property.const]] : []
  })
  const event = { '@timestamp': '2026-01-01T00:00:00.000Z', ...Object.fromEntries(constants), ...change }
  expect([...Compile(schema).Errors(event)]).toEqual([])
}
