/**
 * Debian's auditd for comparison, with its own defaults and rules for what the agent watches of the storms. It is
 * started by the bench, with its log in the bench's folder, and all of it is undone, whatever happens in between.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ensureSystemPrograms, type SystemProgram } from '../../setup/system-packages.ts'
import { readAuditState, restoreAudit, runAuditctl, whyNotToTouch } from './audit-state.ts'

const AUDIT: readonly SystemProgram[] = [
  { present: '/usr/sbin/auditd', debianPackage: 'auditd', why: 'is what the agent is compared with' },
]
const KEY = 'cordon-bench'
/** As Debian's /etc/audit/rules.d/audit.rules sets them. */
const SETTINGS = [
  ['-b', '8192'],
  ['--backlog_wait_time', '60000'],
  ['-f', '1'],
] as const
const START_LOOKS_MAX = 50
const STOP_GRACE_MS = 5_000

export type AuditdOutcome<Value> =
  | { readonly kind: 'measured'; readonly value: Value; readonly lost: number }
  | { readonly kind: 'skipped'; readonly reason: string }

/** `watchedFolder` is where the storms make files. */
export async function withAuditd<Value>(
  folder: string,
  watchedFolder: string,
  say: (line: string) => void,
  measure: () => Promise<Value>,
): Promise<AuditdOutcome<Value>> {
  const system = ensureSystemPrograms(AUDIT, say)
  if (system.kind === 'missing') return { kind: 'skipped', reason: system.mend }
  const before = readAuditState()
  const reason = whyNotToTouch(before)
  if (before === null || reason !== null) return { kind: 'skipped', reason: reason ?? '' }
  const daemon = spawn('/usr/sbin/auditd', ['-n', '-s', 'enable', '-c', writeConfiguration(folder)], {
    // As a service has one: scheduled apart from what it watches.
    detached: true,
    stdio: 'ignore',
  })
  const exited = new Promise<void>((resolve) => {
    daemon.once('exit', () => resolve())
    daemon.once('error', () => resolve())
  })
  // Whoever stops the bench must not leave rules behind. The handler stays: a second signal would end the program
  // while it restores, and timeout(1) sends two.
  const interrupted = () => {
    daemon.kill('SIGTERM')
    restoreAudit(before, KEY)
    process.exit(130)
  }
  process.on('SIGINT', interrupted)
  process.on('SIGTERM', interrupted)
  try {
    await awaitListening(daemon)
    for (const setting of SETTINGS) runAuditctl(setting)
    for (const rule of rulesFor(watchedFolder)) runAuditctl([...rule, '-k', KEY])
    const value = await measure()
    return { kind: 'measured', value, lost: (readAuditState()?.lost ?? Number.NaN) - before.lost }
  } finally {
    daemon.kill('SIGTERM')
    const timer = setTimeout(() => daemon.kill('SIGKILL'), STOP_GRACE_MS)
    await exited
    clearTimeout(timer)
    restoreAudit(before, KEY)
    process.removeListener('SIGINT', interrupted)
    process.removeListener('SIGTERM', interrupted)
  }
}

/** Audit tells no end of a process and no end of a connection: it has less to do than the agent. */
function rulesFor(watchedFolder: string): string[][] {
  const always = ['-a', 'always,exit', '-F', 'arch=b64']
  return [
    [...always, '-S', 'execve', '-S', 'execveat'],
    [...always, '-F', `dir=${watchedFolder}`, '-F', 'perm=wa'],
    [...always, '-S', 'connect', '-S', 'accept', '-S', 'accept4'],
  ]
}

/** Debian's defaults, but for where things lie, and nothing that would be done to the host when a disk is full. */
function writeConfiguration(folder: string): string {
  const home = join(folder, 'auditd')
  mkdirSync(join(home, 'plugins.d'), { recursive: true, mode: 0o700 })
  const settings = {
    local_events: 'yes',
    write_logs: 'yes',
    log_file: join(home, 'audit.log'),
    log_group: 'root',
    log_format: 'ENRICHED',
    flush: 'INCREMENTAL_ASYNC',
    freq: 50,
    max_log_file: 8,
    num_logs: 5,
    priority_boost: 4,
    name_format: 'NONE',
    max_log_file_action: 'ROTATE',
    space_left: 75,
    space_left_action: 'IGNORE',
    admin_space_left: 50,
    admin_space_left_action: 'IGNORE',
    disk_full_action: 'IGNORE',
    disk_error_action: 'IGNORE',
    q_depth: 2000,
    overflow_action: 'IGNORE',
    max_restarts: 10,
    plugin_dir: join(home, 'plugins.d'),
    end_of_event_timeout: 2,
  }
  const text = Object.entries(settings).map(([name, value]) => `${name} = ${value}\n`)
  writeFileSync(join(home, 'auditd.conf'), text.join(''), { mode: 0o600 })
  return home
}

async function awaitListening(daemon: ChildProcess): Promise<void> {
  for (let looks = 0; looks < START_LOOKS_MAX; looks += 1) {
    const state = readAuditState()
    if (state?.pid === daemon.pid && state?.enabled === 1) return
    if (daemon.exitCode !== null) throw new Error(`auditd ended with ${daemon.exitCode}`)
    await sleep(100)
  }
  throw new Error(`auditd did not listen within ${START_LOOKS_MAX / 10} s`)
}
