/**
 * A copy of a controller's folder as of now, while the controller runs: databases by `VACUUM INTO`, which reads
 * one state of each and holds up no writer; sealed event files by a hard link. In this order: state before
 * certificates, so that no host is known whose certificate is not; and state before events, so that the
 * consumers' cursor never points past what the copy holds.
 */
import {
  closeSync,
  copyFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { openSqlite } from '../../shared/node/sqlite.ts'
import { openState } from '../state/state.ts'
import { eventFilePath, type FileHour, isSealed, listHours } from '../store/events/event-file.ts'
import { BackupError } from './backup-error.ts'
import type { ControllerFolders } from './folders.ts'
import { type Manifest, MEMBER_PATTERN } from './manifest.ts'

export interface SnapshotOptions {
  readonly folders: ControllerFolders
  /** Folder of collected files; null leaves them out. */
  readonly evidence: string | null
  readonly events: boolean
  /** An empty folder on the same file system. */
  readonly staging: string
  readonly nowMs: number
  readonly step: (what: string) => void
}

export interface Snapshot {
  /** Where the bytes of each member lie. */
  readonly members: readonly { readonly name: string; readonly path: string }[]
  readonly facts: Pick<Manifest, 'fleet' | 'epoch' | 'keysetVersion' | 'auditEntries' | 'auditHead'>
}

const AUTHORITY_FILES = ['authority.json', 'keyset.json', 'online-keys.json', 'root.pem'] as const
const EVIDENCE_DEPTH_MAX = 4

export function takeSnapshot(options: SnapshotOptions): Snapshot {
  const { folders, staging, step } = options
  const members: { name: string; path: string }[] = []
  const stage = (name: string, make: (to: string) => void): string => {
    step(name)
    const path = join(staging, name)
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    make(path)
    members.push({ name, path })
    return path
  }

  const statePath = stage('state.db', (to) => copyDatabase(folders.state, to))
  const stateFacts = markState(statePath, options.nowMs)
  stage('pki.db', (to) => copyDatabase(folders.pki, to))
  stage('operators.db', (to) => copyDatabase(folders.operators, to))
  for (const file of AUTHORITY_FILES) {
    stage(`authority/${file}`, (to) => copyFileSync(join(folders.authority, file), to))
  }
  if (options.events && existsSync(folders.events)) {
    for (const hour of listHours(folders.events)) {
      // Retention may take a file away between the list and here.
      if (!existsSync(eventFilePath(folders.events, hour))) continue
      stage(`events/events-${hour}.db`, (to) => copyEventFile(folders.events, hour, to))
    }
  }
  if (options.evidence !== null) {
    for (const name of evidenceFiles(options.evidence)) {
      stage(`evidence/${name}`, (to) => linkOrCopy(join(options.evidence ?? '', name), to))
    }
  }
  return { members, facts: { ...stateFacts, ...authorityFacts(join(staging, 'authority')) } }
}

/** Everything of a SQLite database as of now, in a file without free pages: what was deleted is not in it. */
function copyDatabase(from: string, to: string): void {
  const db = openSqlite({ path: from, migrations: [], readonly: true })
  try {
    // Made beforehand, because SQLite would make it with the mode of the day.
    closeSync(openSync(to, 'wx', 0o600))
    db.prepare('VACUUM INTO ?').run(to)
  } finally {
    db.close()
  }
}

function copyEventFile(folder: string, hour: FileHour, to: string): void {
  if (isSealed({ folder, hour })) linkOrCopy(eventFilePath(folder, hour), to)
  else copyDatabase(eventFilePath(folder, hour), to)
}

function linkOrCopy(from: string, to: string): void {
  try {
    linkSync(from, to)
  } catch {
    copyFileSync(from, to)
  }
}

/** The copy says of itself that it is one: whoever puts it in place has to confirm. */
function markState(path: string, nowMs: number) {
  const state = openState(path)
  try {
    state.restoration.markBackup(nowMs)
    return {
      epoch: state.counters.epoch(),
      auditEntries: state.audit.lastSequence(),
      auditHead: state.audit.last()?.hash ?? '0'.repeat(64),
    }
  } finally {
    state.close()
  }
}

function authorityFacts(folder: string): Pick<Manifest, 'fleet' | 'keysetVersion'> {
  const { fleet } = JSON.parse(readFileSync(join(folder, 'authority.json'), 'utf8')) as { fleet: string }
  const { keyset } = JSON.parse(readFileSync(join(folder, 'keyset.json'), 'utf8')) as { keyset: string }
  const { version } = JSON.parse(Buffer.from(keyset, 'base64').toString('utf8')) as { version: number }
  return { fleet, keysetVersion: version }
}

/** Names of plain files below the folder; links are not followed. */
function evidenceFiles(folder: string): string[] {
  if (!existsSync(folder)) throw new BackupError(`there is no evidence at ${folder}: leave out --evidence`)
  const rule = new RegExp(MEMBER_PATTERN)
  const walk = (below: string, depth: number): string[] =>
    readdirSync(join(folder, below)).flatMap((entry) => {
      const name = below === '' ? entry : `${below}/${entry}`
      const stat = lstatSync(join(folder, name))
      if (stat.isDirectory() && depth < EVIDENCE_DEPTH_MAX) return walk(name, depth + 1)
      if (!stat.isFile() || !rule.test(`evidence/${name}`)) {
        throw new BackupError(`${join(folder, name)} is no plain file of evidence; move it away`)
      }
      return [name]
    })
  return walk('', 1).sort()
}
