/**
 * Puts a backup back. Everything is unpacked into a folder of its own and verified; only then it is moved into
 * place, state first, because it carries the mark that keeps a restored controller from issuing, and authority
 * last, without which no controller starts: an end in the middle leaves nothing that runs.
 */
import {
  closeSync,
  createWriteStream,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statfsSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { syncFolder } from '../../shared/node/durable-file.ts'
import { holdStateFolder } from '../../shared/node/state-lock.ts'
import { createAuditLog } from '../audit/audit-log.ts'
import { createOperators } from '../operators/operators.ts'
import { openPkiDatabase } from '../pki/database.ts'
import { forgetUnusedTokens } from '../pki/enrolment-tokens.ts'
import { openState } from '../state/state.ts'
import { BackupError } from './backup-error.ts'
import type { Progress } from './folders.ts'
import { type Manifest, totalBytes } from './manifest.ts'
import { readBackup } from './read-backup.ts'

export interface RestoreOptions {
  readonly file: string
  /** The controller's future state folder: empty or not there. */
  readonly into: string
  readonly passphrase: string
  readonly nowMs: number
  readonly progress: Progress
}

const UNPACKING = '.restoring'
const LOCK = 'lock.db'
/** For what SQLite writes beside the databases. */
const ROOM_BYTES = 64 * 1024 * 1024

export async function restoreBackup(options: RestoreOptions): Promise<Manifest> {
  const into = resolve(options.into)
  if (existsSync(join(into, LOCK))) refuseWhileHeld(into)
  if (holdsAnything(into)) {
    throw new BackupError(
      `${into} is not empty: nothing is put over what is there; name an empty folder, or move this one away`,
    )
  }
  const held = holdStateFolder(into)
  if (!held) throw runs(into)
  const unpacking = join(into, UNPACKING)
  try {
    mkdirSync(unpacking, { mode: 0o700 })
    const manifest = await unpack(options, into, unpacking)
    settle(unpacking, manifest, options.nowMs)
    putInPlace(unpacking, into)
    return manifest
  } finally {
    rmSync(unpacking, { recursive: true, force: true })
    held[Symbol.dispose]()
  }
}

/** Throws while a controller holds the folder. */
function refuseWhileHeld(folder: string): void {
  const held = holdStateFolder(folder)
  if (!held) throw runs(folder)
  held[Symbol.dispose]()
}

const runs = (folder: string) =>
  new BackupError(`a controller runs with its state in ${folder}; stop it, and restore into an empty folder`)

function holdsAnything(folder: string): boolean {
  return existsSync(folder) && readdirSync(folder).some((name) => !name.startsWith(LOCK))
}

async function unpack(options: RestoreOptions, into: string, unpacking: string): Promise<Manifest> {
  return await readBackup({
    ...options,
    begin(manifest) {
      const needed = totalBytes(manifest) + ROOM_BYTES
      const { bavail, bsize } = statfsSync(into)
      if (bavail * bsize >= needed) return
      throw new BackupError(`${into} has ${bavail * bsize} bytes free, the backup needs ${needed}`)
    },
    open({ name }) {
      const path = join(unpacking, name)
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
      return createWriteStream(path, { flags: 'wx', mode: 0o600, flush: true })
    },
  })
}

/** Holds the databases against the manifest, and ends what must not outlive its time. */
function settle(folder: string, manifest: Manifest, nowMs: number): void {
  const state = openState(join(folder, 'state.db'))
  try {
    const audit = createAuditLog(state, () => nowMs)
    const chain = audit.verify()
    if (chain.kind === 'broken')
      throw new BackupError(`the audit log of the backup is broken: ${chain.reason}`)
    if (chain.headHash !== manifest.auditHead || chain.entries !== manifest.auditEntries) {
      throw new BackupError('the audit log of the backup is not the one that its manifest names')
    }
    if (state.restoration.get()?.backup_ms !== manifest.createdMs) {
      throw new BackupError('the state in the backup does not carry the mark of this backup')
    }
    state.run(() => {
      state.restoration.restored(nowMs)
      // Event ids begin anew without the files: a cursor of before would pass over what agents send again.
      if (!manifest.events) state.consumer.restart()
      const when = new Date(manifest.createdMs).toISOString()
      audit.record('controller', 'controller.restore', manifest.fleet, `From the backup of ${when}.`)
    })
  } finally {
    state.close()
  }
  const pki = openPkiDatabase(join(folder, 'pki.db'))
  try {
    forgetUnusedTokens(pki)
  } finally {
    pki.close()
  }
  const operators = createOperators({ path: join(folder, 'operators.db') })
  try {
    operators.endAllSessions()
  } finally {
    operators.close()
  }
}

function putInPlace(unpacking: string, into: string): void {
  const found = readdirSync(unpacking)
  const order = [
    'state.db',
    ...found.filter((name) => name !== 'state.db' && name !== 'authority'),
    'authority',
  ]
  for (const name of order) {
    syncTree(join(unpacking, name))
    renameSync(join(unpacking, name), join(into, name))
    syncFolder(into)
  }
}

/** The files were flushed when they were written; databases have been opened since. */
function syncTree(path: string): void {
  const descriptor = openSync(path, 'r')
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}
