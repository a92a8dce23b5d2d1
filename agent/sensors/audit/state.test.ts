import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { type AuditControl, AuditRefused, type AuditStatus, type StatusChange } from './control.ts'
import { encodeRule, isOwnRule, RULE_KEY, rulesFor } from './rules.ts'
import { createAuditSettings, refusalOf } from './state.ts'

const folder = mkdtempSync(join(tmpdir(), 'cordon-audit-state-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const found: AuditStatus = {
  enabled: 0,
  failure: 1,
  pid: 0,
  rateLimit: 0,
  backlogLimit: 64,
  lost: 0,
  backlog: 0,
  backlogWaitTime: 15_000,
}

/** Keeps settings and rules as the kernel does. */
function fakeControl(status: Partial<AuditStatus> = {}, refuse: (rule: Buffer) => number = () => 0) {
  let state: AuditStatus = { ...found, ...status }
  const rules: Buffer[] = []
  const changes: StatusChange[] = []
  const control: AuditControl = {
    status: async () => state,
    async set(change) {
      changes.push(change)
      state = { ...state, ...change }
    },
    async addRule(rule) {
      const errno = rules.some((one) => one.equals(rule)) ? 17 : refuse(rule)
      if (errno !== 0) throw new AuditRefused('a rule', errno)
      rules.push(rule)
    },
    async deleteRule(rule) {
      rules.splice(
        rules.findIndex((one) => one.equals(rule)),
        1,
      )
    },
    listRules: async () => [...rules],
    close: () => undefined,
  }
  return { control, rules, changes, status: () => state }
}

test('settings are changed only where they must be, and each is put back', async () => {
  const { control, changes, status, rules } = fakeControl({ backlogLimit: 100_000 })
  const settings = createAuditSettings(control, undefined)
  await settings.begin()
  await settings.addRules([1_234])
  expect(changes).toEqual([{ enabled: 1, backlogWaitTime: 0 }])
  expect(rules.length).toBeGreaterThan(50)
  await settings.deleteRules()
  await settings.restore()
  expect(rules).toEqual([])
  expect(status()).toEqual({ ...found, backlogLimit: 100_000 })
})

test('no limit stays no limit, and a kernel without a wait time is not given one', async () => {
  const { control, changes } = fakeControl({ enabled: 1, backlogLimit: 0, backlogWaitTime: null })
  await createAuditSettings(control, undefined).begin()
  expect(changes).toEqual([{}])
})

test('what somebody else changed meanwhile stays as it is', async () => {
  const { control, status } = fakeControl()
  const settings = createAuditSettings(control, undefined)
  await settings.begin()
  await control.set({ backlogLimit: 999 })
  await settings.restore()
  expect(status()).toEqual({ ...found, backlogLimit: 999 })
})

test.each([
  [{ enabled: 2 }, 'locked'],
  [{ failure: 2 }, 'panic'],
])('audit with %o is not touched', async (status, reason) => {
  const { control, changes, rules } = fakeControl(status)
  const settings = createAuditSettings(control, join(folder, 'untouched'))
  await expect(settings.begin()).rejects.toThrow(reason)
  await settings.deleteRules()
  await settings.restore()
  expect([changes, rules]).toEqual([[], []])
  expect(existsSync(join(folder, 'untouched'))).toBe(false)
  expect(refusalOf({ ...found, ...status })).toContain(reason)
})

test('the settings that a crashed agent had found are the ones that are put back', async () => {
  const statePath = join(folder, 'crashed')
  const crashed = fakeControl()
  await createAuditSettings(crashed.control, statePath).begin()
  expect(JSON.parse(readFileSync(statePath, 'utf8'))).toEqual({
    enabled: 0,
    backlogLimit: 64,
    backlogWaitTime: 15_000,
  })
  const settings = createAuditSettings(crashed.control, statePath)
  await settings.begin()
  await settings.restore()
  expect(crashed.status()).toEqual(found)
  expect(existsSync(statePath)).toBe(false)
})

test.each([
  '',
  '{',
  'null',
  '[]',
  '{"enabled":2,"backlogLimit":1,"backlogWaitTime":1}',
  '{"enabled":0}',
  '{"enabled":0,"backlogLimit":-1,"backlogWaitTime":1}',
])('a state file that holds %j counts as none', async (text) => {
  const statePath = join(folder, 'hostile')
  writeFileSync(statePath, text)
  const { control, status } = fakeControl({ enabled: 1, backlogLimit: 320 })
  const settings = createAuditSettings(control, statePath)
  await settings.begin()
  await settings.restore()
  expect(status()).toEqual({ ...found, enabled: 1, backlogLimit: 320 })
})

test('a kernel that cannot tell families of addresses gets wider rules, another refusal ends it', async () => {
  const usesFamily = (rule: Buffer) => {
    const fields = Array.from({ length: rule.readUInt32LE(8) }, (_, index) =>
      rule.readUInt32LE(268 + 4 * index),
    )
    return fields.includes(113)
  }
  const old = fakeControl({}, (rule) => (usesFamily(rule) ? 22 : 0))
  await createAuditSettings(old.control, undefined).addRules([])
  expect(old.rules.some(usesFamily)).toBe(false)
  const unwilling = fakeControl({}, () => 1)
  await expect(createAuditSettings(unwilling.control, undefined).addRules([])).rejects.toThrow('error 1')
})

test('a rule is encoded as the kernel reads it', () => {
  const rule = encodeRule({ calls: ['chmod', 'fchmodat2'], conditions: [['success', 'equal', 1]] }, 'b64')
  expect(rule?.length).toBe(1_040 + RULE_KEY.length)
  expect([0, 4, 8].map((offset) => rule?.readUInt32LE(offset))).toEqual([4, 2, 3])
  expect(rule?.readUInt32LE(12 + 4 * 2)).toBe(1 << (90 - 64))
  expect(rule?.readUInt32LE(12 + 4 * 14)).toBe(1 << (452 - 448))
  expect([268, 272, 276].map((offset) => rule?.readUInt32LE(offset))).toEqual([11, 104, 210])
  expect(encodeRule({ calls: ['socketcall'], conditions: [] }, 'b64')).toBeNull()
})

test('only rules with exactly the key are Cordon’s, whatever else they hold', () => {
  const rule = encodeRule({ calls: ['ptrace'], conditions: [] }, 'b64') ?? Buffer.alloc(0)
  expect(isOwnRule(rule)).toBe(true)
  const longer = Buffer.concat([rule, Buffer.from('2')])
  longer.writeUInt32LE(RULE_KEY.length + 1, 524 + 4)
  expect(isOwnRule(longer)).toBe(false)
  for (let length = 0; length < rule.length; length += 7)
    expect(isOwnRule(rule.subarray(0, length))).toBe(false)
  const many = Buffer.from(rule)
  many.writeUInt32LE(0xffff_ffff, 8)
  many.writeUInt32LE(0xffff_ffff, 524 + 4)
  expect(isOwnRule(many)).toBe(false)
})

test('signals are asked for by each process that is protected, up to a bound', () => {
  const signals = (pids: number[]) => rulesFor(pids).filter(({ calls }) => calls.includes('kill')).length
  expect(signals([])).toBe(1)
  expect(signals([10])).toBe(3)
  expect(signals(Array.from({ length: 100 }, (_, index) => index + 1))).toBe(17)
})
