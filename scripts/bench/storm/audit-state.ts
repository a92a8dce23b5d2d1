/** The kernel's audit settings (auditctl(8)): read, and set back to what they were. */
import { spawnSync } from 'node:child_process'

const AUDITCTL = '/usr/sbin/auditctl'

export interface AuditState {
  readonly enabled: number
  readonly failure: number
  /** The daemon that listens; 0: none. */
  readonly pid: number
  readonly rateLimit: number
  readonly backlogLimit: number
  readonly backlogWaitTime: number
  readonly lost: number
}

/** From the text of `auditctl -s`. Null when something is missing in it. */
export function parseAuditState(text: string): AuditState | null {
  const read = (key: string) => {
    const value = new RegExp(`^${key} (\\d+)$`, 'm').exec(text)?.[1]
    return value === undefined ? Number.NaN : Number(value)
  }
  const state = {
    enabled: read('enabled'),
    failure: read('failure'),
    pid: read('pid'),
    rateLimit: read('rate_limit'),
    backlogLimit: read('backlog_limit'),
    backlogWaitTime: read('backlog_wait_time'),
    lost: read('lost'),
  }
  return Object.values(state).some(Number.isNaN) ? null : state
}

export function readAuditState(): AuditState | null {
  const ran = auditctl(['-s'])
  return ran.status === 0 ? parseAuditState(ran.stdout) : null
}

/** Why it must not be touched; null: it may. */
export function whyNotToTouch(state: AuditState | null): string | null {
  if (state === null) return 'the audit settings of this kernel cannot be read'
  if (state.enabled === 2) return 'its audit settings are locked until the next boot (enabled 2)'
  if (state.pid !== 0) return `process ${state.pid} listens to audit already, and there can be one alone`
  return null
}

export function runAuditctl(values: readonly string[]): void {
  const ran = auditctl(values)
  if (ran.status !== 0) throw new Error(`auditctl ${values.join(' ')} failed: ${ran.stderr.trim()}`)
}

/** Deletes the rules of this key and sets back the rest. Throws when it is not as it was. */
export function restoreAudit(before: AuditState, key: string): void {
  // Fails when there are none of the key.
  auditctl(['-D', '-k', key])
  // 2 would lock it, and it was not 2 before.
  const enabled = before.enabled === 1 ? '1' : '0'
  runAuditctl(['-e', enabled])
  runAuditctl(['-f', String(before.failure)])
  runAuditctl(['-r', String(before.rateLimit)])
  runAuditctl(['-b', String(before.backlogLimit)])
  runAuditctl(['--backlog_wait_time', String(before.backlogWaitTime)])
  const after = readAuditState()
  const { lost: _, pid: __, ...wanted } = before
  for (const [name, value] of Object.entries(wanted))
    if (after?.[name as keyof typeof wanted] !== value)
      throw new Error(
        `audit setting ${name} is ${after?.[name as keyof typeof wanted]} and was ${value} before`,
      )
}

/** Once more when a signal ended it: one that was meant for the bench reaches the programs that it runs too. */
function auditctl(values: readonly string[]) {
  const run = () => spawnSync(AUDITCTL, values, { encoding: 'utf8' })
  const ran = run()
  return ran.signal === null ? ran : run()
}
