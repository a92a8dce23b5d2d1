/**
 * Native addons of a packed program. The kernel loads libraries from files alone, so each is written to a private
 * folder once, and every time before it is loaded the open file is compared with what was built: who owns it, who
 * may write it, its size, its SHA-256. What differs is not loaded but written anew, and told.
 */
import { createHash } from 'node:crypto'
import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { packed, readPacked } from './assets.ts'
import { writeFileDurably } from './durable-file.ts'

/** As pkg.config.json names them. */
export type AddonName = 'better-sqlite3' | 'yara-x' | 'cordon'

/** Where the addons lie; in the environment, so that worker threads and the scanner child know it, too. */
export const ADDON_FOLDER_VARIABLE = 'CORDON_ADDON_FOLDER'

const FINDINGS_MAX = 16

type Opened =
  | { readonly kind: 'sound'; readonly fd: number }
  | { readonly kind: 'missing' }
  | { readonly kind: 'foreign'; readonly reason: string }

/** Says where the addons of this program lie from now on. Without a call they go to a folder that is removed. */
export function keepAddonsIn(folder: string): void {
  if (packed !== null) process.env[ADDON_FOLDER_VARIABLE] = folder
}

/** True when this program carries its addons in itself. */
export function carriesAddons(): boolean {
  return packed !== null
}

/**
 * The exports of an addon inside a packed program. Throws when the program does not carry it, or when it cannot
 * be written or loaded.
 */
export function loadPackedAddon(name: AddonName): unknown {
  const kept = process.env[ADDON_FOLDER_VARIABLE]
  if (kept !== undefined && kept !== '') {
    const { fd } = openSound(kept, name)
    if (fd !== null) return loadOpened(name, fd)
    // A folder of somebody else, as for a user who looks at the state of root: loaded from one of its own.
  }
  const folder = mkdtempSync(join(tmpdir(), 'cordon-addon-'))
  try {
    const { fd, problem } = openSound(folder, name)
    if (fd === null) throw new Error(`the addon ${name} cannot be loaded: ${problem}`)
    return loadOpened(name, fd)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** What was found in the place of addons by this thread and not yet told. */
let findings: string[] = []
/** By addon: the file that was found sound, and when it changed last. */
const lastSound = new Map<AddonName, string>()

/**
 * Makes sure that the kept addons are sound, without loading them. Returns a sentence for each that was not what
 * this program put there, now or when it was loaded; nothing in a program that runs from files. A file that is as
 * it was found the last time is not read again: whoever loads it looks at all of it.
 */
export function restoreAddons(names: readonly AddonName[]): string[] {
  const folder = process.env[ADDON_FOLDER_VARIABLE]
  if (packed === null || folder === undefined || folder === '') return []
  for (const name of names) {
    const facts = lstatSync(addonPath(folder, name), { bigint: true, throwIfNoEntry: false })
    if (facts !== undefined && identityOf(facts) === lastSound.get(name)) continue
    const { fd } = openSound(folder, name)
    if (fd === null) continue
    lastSound.set(name, identityOf(fstatSync(fd, { bigint: true })))
    closeSync(fd)
  }
  const told = findings
  findings = []
  return told
}

function identityOf(facts: BigIntStats): string {
  return `${facts.dev}:${facts.ino}:${facts.size}:${facts.mode}:${facts.ctimeNs}`
}

/** An upgrade brings other bytes under another name: that is no tampering. */
function addonPath(folder: string, name: AddonName): string {
  return join(folder, `${name}-${factsOf(name).sha256.slice(0, 16)}.node`)
}

function factsOf(name: AddonName): { readonly sha256: string; readonly size: number } {
  const facts = packed?.addons[name]
  if (facts === undefined) throw new Error(`this program does not carry the addon ${name}`)
  return facts
}

/** `fd` null: the folder cannot hold it, `problem` says why. */
function openSound(
  folder: string,
  name: AddonName,
): { readonly fd: number | null; readonly problem: string } {
  const path = addonPath(folder, name)
  try {
    ensurePrivate(folder)
    const first = openChecked(path, name)
    if (first.kind === 'sound') return { fd: first.fd, problem: '' }
    if (first.kind === 'foreign') noteForeign(path, first.reason)
    // A folder in the file's place, too: whatever it is, it is not ours.
    rmSync(path, { recursive: true, force: true })
    forgetOthers(folder, name)
    writeFileDurably(path, readPacked(`addons/${name}.node`), 0o500)
    const second = openChecked(path, name)
    if (second.kind === 'sound') return { fd: second.fd, problem: '' }
    const problem = second.kind === 'foreign' ? second.reason : 'it is gone as soon as it is written'
    noteForeign(path, problem)
    return { fd: null, problem }
  } catch (error) {
    return { fd: null, problem: error instanceof Error ? error.message : String(error) }
  }
}

function noteForeign(path: string, reason: string): void {
  if (findings.length >= FINDINGS_MAX) return
  findings.push(`${path} was not what Cordon wrote and was written anew: ${reason}`)
}

/** Ours alone. Throws when the folder is somebody else's. */
function ensurePrivate(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const facts = lstatSync(folder)
  if (!facts.isDirectory()) throw new Error(`${folder} is not a folder`)
  if (facts.uid !== process.geteuid?.()) throw new Error(`${folder} belongs to user ${facts.uid}`)
  if ((facts.mode & 0o022) !== 0) throw new Error(`others may write to ${folder}: chmod 700 it`)
}

/** Addons of other versions of this program. One that runs has them open and loses nothing. */
function forgetOthers(folder: string, name: AddonName): void {
  const versions = new RegExp(`^${name}-[0-9a-f]{16}\\.node$`)
  for (const file of readdirSync(folder)) if (versions.test(file)) rmSync(join(folder, file), { force: true })
}

/** All is asked of the open file: what its name leads to may change meanwhile. */
function openChecked(path: string, name: AddonName): Opened {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'an unknown error'
    return code === 'ENOENT'
      ? { kind: 'missing' }
      : { kind: 'foreign', reason: `it cannot be opened (${code})` }
  }
  const reason = differenceOf(fd, name)
  if (reason === null) return { kind: 'sound', fd }
  closeSync(fd)
  return { kind: 'foreign', reason }
}

function differenceOf(fd: number, name: AddonName): string | null {
  const { sha256, size } = factsOf(name)
  const facts = fstatSync(fd)
  if (!facts.isFile()) return 'it is not a file'
  if (facts.uid !== process.geteuid?.()) return `it belongs to user ${facts.uid}`
  if ((facts.mode & 0o022) !== 0) return 'others may write it'
  if (facts.nlink !== 1) return `it has ${facts.nlink} names`
  if (facts.size !== size) return `it has ${facts.size} bytes, not ${size}`
  const found = createHash('sha256').update(readFileSync(fd)).digest('hex')
  return found === sha256 ? null : `its SHA-256 is ${found}`
}

/**
 * The linker takes a library that it has under the same name already, and numbers of descriptors come again:
 * each addon spells the path in its own way, so that no two ever share one.
 */
const SPELLINGS: Readonly<Record<AddonName, string>> = {
  'better-sqlite3': '/proc/self/fd',
  'yara-x': '/proc/self/./fd',
  cordon: '/proc/self/././fd',
}

function loadOpened(name: AddonName, fd: number): unknown {
  const module = { exports: {} }
  try {
    process.dlopen(module, `${SPELLINGS[name]}/${fd}`)
  } finally {
    closeSync(fd)
  }
  return module.exports
}
