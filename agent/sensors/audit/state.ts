/**
 * The settings of the kernel's audit while Cordon uses it, and what they were before: each value that was changed
 * is put back at the end, unless somebody else has changed it since. The values found are kept in a file too, so
 * that an agent that crashed does not leave its own for those of the host.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import type { AuditControl, AuditStatus, StatusChange } from './control.ts'
import { AuditRefused } from './control.ts'
import { encodeRule, isOwnRule, needsAddressFamily, rulesFor, withoutAddressFamily } from './rules.ts'

/** Messages that wait for the reader; the kernel's own default is 64, which a handful of programs overflows. */
const backlogLimit = 16_384
const architectures = ['b64', 'b32'] as const
const invalid = 22
const exists = 17

/** The values that are put back. */
type Settings = Pick<AuditStatus, 'enabled' | 'backlogLimit' | 'backlogWaitTime'>

/** Why audit cannot be used as it is set, or null. */
export function refusalOf(status: AuditStatus): string | null {
  if (status.enabled > 1) {
    return "audit's settings are locked until the next boot (enabled 2; auditctl -e 2), so Cordon can add no rules"
  }
  if (status.failure > 1) {
    return 'the host is set to panic when an audit message is lost (failure 2): auditctl -f 1 lets Cordon use audit'
  }
  return null
}

export interface AuditSettings {
  /** Deletes what a crashed agent left, and sets what Cordon needs. */
  begin(): Promise<void>
  /** Adds the rules that are not there. */
  addRules(protectedPids: readonly number[]): Promise<void>
  /** Exactly those with Cordon's key; nothing when nothing was begun. */
  deleteRules(): Promise<void>
  restore(): Promise<void>
}

function writeSettings(path: string, settings: Settings): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  writeFileSync(path, JSON.stringify(pick(settings)), { mode: 0o600 })
}

export function createAuditSettings(control: AuditControl, statePath: string | undefined): AuditSettings {
  let found: Settings | null = null
  let wanted: Settings | null = null

  async function deleteRules(): Promise<void> {
    for (const rule of await control.listRules()) if (isOwnRule(rule)) await control.deleteRule(rule)
  }

  return {
    async begin() {
      const status = await control.status()
      const refusal = refusalOf(status)
      if (refusal !== null) throw new Error(refusal)
      await deleteRules()
      found = readSettings(statePath) ?? status
      wanted = wantedSettings(status)
      if (statePath !== undefined) writeSettings(statePath, found)
      await control.set(changeBetween(status, wanted))
    },
    async addRules(protectedPids) {
      for (const rule of rulesFor(protectedPids)) {
        for (const architecture of architectures) {
          const data = encodeRule(rule, architecture)
          if (data === null) continue
          try {
            await addOne(control, data)
          } catch (error) {
            const isOld = error instanceof AuditRefused && error.errno === invalid && needsAddressFamily(rule)
            if (!isOld) throw error
            const wider = encodeRule(withoutAddressFamily(rule), architecture)
            if (wider !== null) await addOne(control, wider)
          }
        }
      }
    },
    async deleteRules() {
      if (found !== null) await deleteRules()
    },
    async restore() {
      if (found === null || wanted === null) return
      const now = await control.status()
      const change: StatusChange = {
        ...(now.enabled === wanted.enabled && { enabled: found.enabled }),
        ...(now.backlogLimit === wanted.backlogLimit && { backlogLimit: found.backlogLimit }),
        ...(now.backlogWaitTime === wanted.backlogWaitTime &&
          found.backlogWaitTime !== null && { backlogWaitTime: found.backlogWaitTime }),
      }
      await control.set(changeBetween(now, { ...now, ...change }))
      if (statePath !== undefined) rmSync(statePath, { force: true })
      found = null
    },
  }
}

async function addOne(control: AuditControl, data: Buffer): Promise<void> {
  try {
    await control.addRule(data)
  } catch (error) {
    if (!(error instanceof AuditRefused && error.errno === exists)) throw error
  }
}

function wantedSettings(status: AuditStatus): Settings {
  return {
    enabled: 1,
    // 0 is no limit.
    backlogLimit: status.backlogLimit === 0 ? 0 : Math.max(status.backlogLimit, backlogLimit),
    // Otherwise every program of the host waits for the agent when that is behind.
    backlogWaitTime: status.backlogWaitTime === null ? null : 0,
  }
}

/** Only what differs: each setting that is sent is a line in the host's audit log. */
function changeBetween(before: Settings, after: Settings): StatusChange {
  return {
    ...(before.enabled !== after.enabled && { enabled: after.enabled }),
    ...(before.backlogLimit !== after.backlogLimit && { backlogLimit: after.backlogLimit }),
    ...(after.backlogWaitTime !== null &&
      before.backlogWaitTime !== after.backlogWaitTime && { backlogWaitTime: after.backlogWaitTime }),
  }
}

function pick({ enabled, backlogLimit, backlogWaitTime }: Settings): Settings {
  return { enabled, backlogLimit, backlogWaitTime }
}

/** What an agent that did not end well had found; null when there is nothing, or nothing that makes sense. */
function readSettings(path: string | undefined): Settings | null {
  if (path === undefined) return null
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'))
    return isSettings(value) ? pick(value) : null
  } catch {
    return null
  }
}

function isSettings(value: unknown): value is Settings {
  if (typeof value !== 'object' || value === null) return false
  const { enabled, backlogLimit, backlogWaitTime } = value as Partial<Record<keyof Settings, unknown>>
  const isWord = (one: unknown) => Number.isInteger(one) && Number(one) >= 0 && Number(one) <= 0xffff_ffff
  return (
    (enabled === 0 || enabled === 1) &&
    isWord(backlogLimit) &&
    (backlogWaitTime === null || isWord(backlogWaitTime))
  )
}
