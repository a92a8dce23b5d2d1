/** Who processes become, who logs on, and who sends signals to the agent. */
import type { ActivityRecord, KernelText, LogonRecord } from '../records.ts'
import { lowWord, type RawActivity, value, wideValue } from './raw-activity.ts'
import { textUpToZero } from './record-reader.ts'

/** Numbers of x86-64, and how many of the arguments are users or groups. */
const credentialCalls: Readonly<Record<number, readonly [name: string, argumentCount: number]>> = {
  105: ['setuid', 1],
  106: ['setgid', 1],
  113: ['setreuid', 2],
  114: ['setregid', 2],
  116: ['setgroups', 0],
  117: ['setresuid', 3],
  119: ['setresgid', 3],
  122: ['setfsuid', 1],
  123: ['setfsgid', 1],
  126: ['capset', 0],
}

export function decodeCredentials(raw: RawActivity): ActivityRecord | null {
  const call = credentialCalls[value(raw, 0)]
  if (call === undefined) return null
  const [operation, argumentCount] = call
  return {
    kind: 'credentials',
    ...raw.observed,
    operation,
    requested: [1, 2, 3].slice(0, argumentCount).map((index) => orUnchanged(lowWord(raw, index))),
    effectiveUserId: value(raw, 4),
    effectiveCapabilities: wideValue(raw, 5),
  }
}

function orUnchanged(id: number): number {
  return id === 0xffff_ffff ? -1 : id
}

/** The service manager, and whoever started the agent by hand, may end what they started. */
const startersOfAgent: ReadonlySet<number> = new Set([1, process.ppid])

export function decodeSignal(raw: RawActivity): ActivityRecord | null {
  if (startersOfAgent.has(raw.observed.process.pid)) return null
  const reason = `signal ${value(raw, 0)} was sent to the agent (process ${value(raw, 1)})`
  return { kind: 'tamper', ...raw.observed, reason }
}

const pamFunctions = { authenticate: 1, openSession: 2, closeSession: 3 } as const
const logonTextBytes = 64
/** PAM_INCOMPLETE, PAM_CONV_ERR, PAM_ABORT, PAM_IGNORE: nobody was turned away. */
const noVerdicts: ReadonlySet<number> = new Set([31, 19, 26, 25])
const elevatingServices = /^(?:su|su-l|sudo|sudo-i|runuser|runuser-l|doas|polkit-1|pkexec)$/
/** Sessions that no person opens. */
const machineServices = /^(?:cron|crond|atd|systemd-user|anacron)$/

export function decodeLogon(raw: RawActivity): LogonRecord | null {
  const text = (index: number) =>
    textUpToZero(raw.second.subarray(index * logonTextBytes, (index + 1) * logonTextBytes))
  const action = logonAction(value(raw, 0), lowWord(raw, 1), asText(text(1)) ?? '')
  if (action === null) return null
  return {
    kind: 'logon',
    ...raw.observed,
    action,
    account: text(0) ?? '',
    source: 'pam',
    service: asText(text(1)),
    terminal: asText(text(3)),
    remote: text(2),
  }
}

function logonAction(functionCode: number, result: number, service: string): LogonRecord['action'] | null {
  if (machineServices.test(service)) return null
  if (functionCode === pamFunctions.authenticate) {
    return result !== 0 && !noVerdicts.has(result) ? 'logon-failed' : null
  }
  if (result !== 0) return null
  if (functionCode === pamFunctions.closeSession) return 'logoff'
  return elevatingServices.test(service) ? 'privilege-elevated' : 'logon'
}

function asText(text: KernelText | null): string | null {
  return text === null ? null : typeof text === 'string' ? text : Buffer.from(text).toString('utf8')
}
