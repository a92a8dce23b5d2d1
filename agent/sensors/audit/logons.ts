/**
 * Who logs on and off, from the messages that PAM and sshd send to the kernel's audit (audit-userspace's
 * msg_typetab.h). Their text is what a program with CAP_AUDIT_WRITE says: only the pid before it is the kernel's.
 *
 * Only messages of sessions and of failures are told. USER_LOGIN, USER_CMD and CRED_* repeat what the session's
 * message says; accounts and groups are told from the files that they change, where it is known how.
 */
import type { KernelText, LogonRecord, ProcessReference } from '../records.ts'
import type { AuditRecord } from './assembly.ts'
import { type Fields, numberValue, parseFields, textValue } from './record-text.ts'

/** AUDIT_USER_* of audit-userspace. */
const messages = {
  authentication: 1100,
  sessionStart: 1105,
  sessionEnd: 1106,
  error: 1109,
  login: 1112,
} as const
/** Programs with which somebody who is logged on becomes somebody else. */
const elevating = new Set(['su', 'sudo', 'doas', 'pkexec', 'runuser', 'run0'])
const unknownValues = new Set(['?', '', '(none)', '(unknown)'])
const repeatMs = 2_000
const failuresMax = 256

export interface Logons {
  /** Null for a message that is not told. */
  record(message: AuditRecord, timestampMs: number): LogonRecord | null
}

export function createLogons(keyOf: (pid: number) => ProcessReference): Logons {
  // sshd tells a failure itself after PAM did: the second message within a moment is no second failure.
  const failures = new Map<number, number>()

  function isRepeated(pid: number, type: number, timestampMs: number): boolean {
    const before = failures.get(pid)
    failures.delete(pid)
    failures.set(pid, timestampMs)
    if (failures.size > failuresMax) {
      const oldest = failures.keys().next()
      if (!oldest.done) failures.delete(oldest.value)
    }
    if (type === messages.authentication || before === undefined) return false
    // After a clock was set back it is another failure.
    return Math.abs(timestampMs - before) < repeatMs
  }

  return {
    record({ type, fields }, timestampMs) {
      const pid = numberValue(fields.get('pid'))
      const said = saidFields(fields)
      const exe = plain(textValue(said.get('exe')))
      const program = exe === null ? null : exe.slice(exe.lastIndexOf('/') + 1)
      const action = actionOf(type, said, program)
      if (pid === null || pid <= 0 || action === null) return null
      if (action === 'logon-failed' && isRepeated(pid, type, timestampMs)) return null
      return {
        kind: 'logon',
        timestampMs,
        process: keyOf(pid),
        action,
        account: textValue(said.get('acct')) ?? '(unknown)',
        source: 'audit',
        service: program?.slice(0, 64) || null,
        terminal: plain(textValue(said.get('terminal')))?.slice(0, 64) ?? null,
        remote: known(textValue(said.get('addr'))) ?? known(textValue(said.get('hostname'))),
      }
    },
  }
}

/** What stands in `msg='...'`. */
function saidFields(fields: Fields): Fields {
  const message = fields.get('msg') ?? ''
  return message.startsWith("'")
    ? parseFields(message.slice(1, message.endsWith("'") ? -1 : undefined))
    : new Map()
}

function actionOf(type: number, said: Fields, program: string | null): LogonRecord['action'] | null {
  const succeeded = said.get('res') === 'success'
  switch (type) {
    case messages.sessionStart:
      if (!succeeded) return null
      return program !== null && elevating.has(program) ? 'privilege-elevated' : 'logon'
    case messages.sessionEnd:
      return succeeded && (program === null || !elevating.has(program)) ? 'logoff' : null
    case messages.authentication:
    case messages.error:
    case messages.login:
      return succeeded ? null : 'logon-failed'
    default:
      return null
  }
}

function known(value: KernelText | null): KernelText | null {
  return typeof value === 'string' && unknownValues.has(value) ? null : value
}

function plain(value: KernelText | null): string | null {
  const text = known(value)
  return typeof text === 'string' ? text : null
}
