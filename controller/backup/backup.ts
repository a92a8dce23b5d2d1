/**
 * Makes a backup while the controller runs: a snapshot beside the databases, then one sealed file of it:
 * tar, compressed by zstd, sealed by a passphrase (sealed-stream.ts). Issuer and command keys go into it as they
 * lie on disk, sealed by a passphrase of their own, which stays outside; the root's key stays outside too.
 */
import { createHash } from 'node:crypto'
import { createReadStream, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createZstdCompress } from 'node:zlib'
import { type Pack, pack } from 'tar-stream'
import { syncFolder } from '../../shared/node/durable-file.ts'
import { holdStateFolder } from '../../shared/node/state-lock.ts'
import { BackupError } from './backup-error.ts'
import type { ControllerFolders, Progress } from './folders.ts'
import { MANIFEST_NAME, type Manifest, type Member, totalBytes } from './manifest.ts'
import { createSealer } from './sealed-stream.ts'
import { type Snapshot, takeSnapshot } from './snapshot.ts'
import { writeAll } from './write-all.ts'

export interface BackupOptions {
  readonly stateFolder: string
  readonly folders: ControllerFolders
  readonly file: string
  readonly passphrase: string
  readonly events: boolean
  readonly evidence: boolean
  readonly controllerVersion: string
  readonly nowMs: number
  readonly progress: Progress
  readonly signal: AbortSignal
  readonly scryptCost?: number
}

export interface BackupMade {
  readonly manifest: Manifest
  readonly fileBytes: number
}

/** Throws a `BackupError` for what a person can mend; then there is no file. */
export async function makeBackup(options: BackupOptions): Promise<BackupMade> {
  const file = resolve(options.file)
  if (existsSync(file)) throw new BackupError(`${file} is there already; name another file`)
  if (!existsSync(dirname(file))) throw new BackupError(`there is no folder ${dirname(file)}`)
  if (!existsSync(options.folders.state)) {
    throw new BackupError(
      `${options.stateFolder} holds no controller; name its folder: setting stateFolder, CORDON_CONTROLLER_STATE`,
    )
  }
  const staging = join(options.stateFolder, 'backup')
  using held = holdStateFolder(staging)
  if (!held) throw new BackupError(`another backup runs, in ${staging}; wait for it`)
  clearStaging(staging)
  try {
    const content = join(staging, 'content')
    mkdirSync(content, { mode: 0o700 })
    const snapshot = takeSnapshot({
      folders: options.folders,
      events: options.events,
      evidence: options.evidence ? join(options.stateFolder, 'evidence') : null,
      staging: content,
      nowMs: options.nowMs,
      step: (name) => {
        if (options.signal.aborted) throw new BackupError('stopped')
        options.progress(`copying ${name}`, 0, 0)
      },
    })
    const manifest = await describe(snapshot, options)
    await writeSealedTar(file, manifest, snapshot, options)
    return { manifest, fileBytes: statSync(file).size }
  } finally {
    clearStaging(staging)
  }
}

/** What is there but the lock was left by a backup that was killed. */
function clearStaging(staging: string): void {
  for (const name of readdirSync(staging)) {
    if (!name.startsWith('lock.db')) rmSync(join(staging, name), { recursive: true, force: true })
  }
}

async function describe(snapshot: Snapshot, options: BackupOptions): Promise<Manifest> {
  const members: Member[] = []
  for (const { name, path } of snapshot.members) {
    options.progress(`reading ${name}`, members.length, snapshot.members.length)
    const hash = createHash('sha256')
    let bytes = 0
    for await (const chunk of createReadStream(path, { signal: options.signal })) {
      hash.update(chunk)
      bytes += chunk.length
    }
    members.push({ name, bytes, sha256: hash.digest('hex') })
  }
  return {
    v: 1,
    controllerVersion: options.controllerVersion,
    createdMs: options.nowMs,
    ...snapshot.facts,
    events: options.events,
    evidence: options.evidence,
    members,
  }
}

async function writeSealedTar(
  file: string,
  manifest: Manifest,
  snapshot: Snapshot,
  options: BackupOptions,
): Promise<void> {
  const temporary = `${file}.part`
  const sealer = await createSealer(options.passphrase, options.scryptCost)
  const output = await open(temporary, 'wx', 0o600).catch((error: NodeJS.ErrnoException) => {
    const mend = error.code === 'EEXIST' ? 'remove it, when no backup is being written to it' : error.code
    throw new BackupError(`${temporary} cannot be made: ${mend}`)
  })
  try {
    const tar = pack()
    const ended = new AbortController()
    const signal = AbortSignal.any([options.signal, ended.signal])
    const stopOther = (error: unknown) => {
      ended.abort()
      throw error
    }
    const written = pipeline(
      Readable.from(tar),
      createZstdCompress(),
      sealer,
      async (sealed: AsyncIterable<Buffer>) => {
        for await (const chunk of sealed) await output.writeFile(chunk)
      },
      { signal },
    )
    const filled = fill(tar, manifest, snapshot, { ...options, signal })
    const outcomes = await Promise.allSettled([written.catch(stopOther), filled.catch(stopOther)])
    // Whichever failed first stopped the other, whose word is only that it was stopped.
    const failures = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []))
    if (failures.length > 0) throw failures.find((error) => error?.name !== 'AbortError') ?? failures[0]
    await output.sync()
    await output.close()
    renameSync(temporary, file)
    syncFolder(dirname(file))
  } catch (error) {
    await output.close()
    rmSync(temporary, { force: true })
    throw signalled(options.signal) ? new BackupError('stopped; nothing was written') : error
  }
}

const signalled = (signal: AbortSignal): boolean => signal.aborted

async function fill(
  tar: Pack,
  manifest: Manifest,
  snapshot: Snapshot,
  options: BackupOptions,
): Promise<void> {
  const of = totalBytes(manifest)
  let done = 0
  const common = { mode: 0o600, mtime: new Date(manifest.createdMs) }
  tar.entry({ name: MANIFEST_NAME, ...common }, JSON.stringify(manifest))
  for (const [index, { name, path }] of snapshot.members.entries()) {
    const member = manifest.members[index]
    if (member === undefined) throw new Error('the manifest is shorter than the snapshot')
    const hash = createHash('sha256')
    const counted = async function* () {
      for await (const chunk of createReadStream(path)) {
        hash.update(chunk)
        done += chunk.length
        options.progress(`writing ${name}`, done, of)
        yield chunk as Buffer
      }
    }
    await writeAll(tar.entry({ name, size: member.bytes, ...common }), counted(), options.signal)
    // Only an event file that was written again after it was sealed could do this.
    if (hash.digest('hex') !== member.sha256) {
      throw new BackupError(`${name} changed while it was copied; make the backup again`)
    }
  }
  tar.finalize()
}
