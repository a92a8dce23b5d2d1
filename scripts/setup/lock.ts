/** One instance per state folder: a lock file that names its process by pid and start time. */
import { closeSync, mkdirSync, openSync, readFileSync, unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { readStat } from '../../agent/platform/linux/processes.ts'

export interface LockHolder {
  readonly pid: number
  readonly startTicks: number
  /** What a second instance is told, such as the address of the first. */
  url: string
}

export type LockResult =
  | { readonly ok: true; readonly describe: (url: string) => void; readonly release: () => void }
  | { readonly ok: false; readonly holder: LockHolder }

/** Makes the folder when it is missing. */
export function takeLock(folder: string): LockResult {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const path = join(folder, 'lock')
  for (;;) {
    try {
      const descriptor = openSync(path, 'wx', 0o600)
      const own: LockHolder = {
        pid: process.pid,
        startTicks: readStat(process.pid)?.startTicks ?? 0,
        url: '',
      }
      const write = () => {
        const text = JSON.stringify(own)
        writeSync(descriptor, text, 0)
      }
      write()
      return {
        ok: true,
        describe(url) {
          own.url = url
          write()
        },
        release() {
          closeSync(descriptor)
          unlinkSync(path)
        },
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      const holder = readHolder(path)
      // The holder's pid may have been given to another process since: only its start time tells.
      if (holder && readStat(holder.pid)?.startTicks === holder.startTicks) return { ok: false, holder }
      unlinkSync(path)
    }
  }
}

function readHolder(path: string): LockHolder | null {
  try {
    const holder: LockHolder = JSON.parse(readFileSync(path, 'utf8'))
    return Number.isInteger(holder.pid) && Number.isInteger(holder.startTicks) ? holder : null
  } catch {
    // Left half-written by a crash: nobody holds it.
    return null
  }
}
