/** Reads the event files of a stopped controller and holds them against what the fleet was acknowledged. */
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import type { FleetMember } from './simulated-agent.ts'

export interface Stored {
  readonly rows: number
  /** Of the files, with their indexes. */
  readonly bytes: number
  /** Acknowledged and not there. */
  readonly lost: number
  /** There more than once. */
  readonly duplicates: number
  readonly files: number
  readonly sealedFiles: number
}

/** `acknowledged` is by member: sequence up to which everything was acknowledged, by class. */
export function compareStored(
  folder: string,
  members: readonly FleetMember[],
  acknowledged: readonly Readonly<Record<number, number>>[],
): Stored {
  const names = readdirSync(folder).filter((name) => /^events-.*\.db$/.test(name))
  const seen = new Map<string, Set<number>>()
  let rows = 0
  let duplicates = 0
  let sealedFiles = 0
  for (const name of names) {
    const db = new Database(join(folder, name), { readonly: true })
    try {
      sealedFiles += Number(db.prepare('SELECT sealed FROM file').pluck().get())
      const stored = db
        .prepare<[], [string, number, number]>(
          `SELECT a.agent_id || ':' || s.stream_id, s.class, b.first_sequence + e.id - b.first_event
           FROM event e JOIN batch b ON b.id = e.batch JOIN stream s ON s.id = b.stream
           JOIN agent a ON a.id = s.agent`,
        )
        .raw()
      for (const [stream, eventClass, sequence] of stored.iterate()) {
        const key = `${stream}:${eventClass}`
        const sequences = seen.get(key) ?? new Set()
        if (sequences.size === 0) seen.set(key, sequences)
        rows += 1
        if (sequences.has(sequence)) duplicates += 1
        sequences.add(sequence)
      }
    } finally {
      db.close()
    }
  }
  let lost = 0
  members.forEach(({ agentId }, index) => {
    for (const [eventClass, last] of Object.entries(acknowledged[index] ?? {})) {
      const sequences = seen.get(`${agentId}:${agentId}:${eventClass}`)
      for (let sequence = 1; sequence <= last; sequence += 1) if (!sequences?.has(sequence)) lost += 1
    }
  })
  const bytes = names.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0)
  return { rows, bytes, lost, duplicates, files: names.length, sealedFiles }
}
