import { expect, test } from 'vitest'
import { createSilentLogger } from '../../shared/node/logger.ts'
import { createAlerts } from '../audit/alerts.ts'
import { createAuditLog } from '../audit/audit-log.ts'
import type { Enrolment } from '../pki/enrolment.ts'
import { openTemporaryState, type TemporaryState } from '../state/testing/temporary-state.ts'
import { confirmRestoration, reviewRestoration } from './confirm.ts'
import { createIssuingGuard, refusalAt } from './issuing.ts'

const BACKUP_MS = Date.parse('2026-11-20T10:00:00.000Z')
const NOW_MS = Date.parse('2026-11-24T10:00:00.000Z')
const AGENT = 'a'.repeat(32)
const ada = { by: 'ada', reason: 'the disk broke', nowMs: NOW_MS + 1_000, rolledBack: false }

function restored(temporary: TemporaryState) {
  const { state } = temporary
  state.restoration.markBackup(BACKUP_MS)
  state.restoration.restored(NOW_MS)
  return guardOf(temporary)
}

function guardOf({ state }: TemporaryState) {
  const audit = createAuditLog(state, () => NOW_MS + 500)
  const log = createSilentLogger()
  const alerts = createAlerts({ state, audit, log, nowMs: () => NOW_MS + 500 })
  return createIssuingGuard({ state, alerts, log })
}

const enrolment: Enrolment = {
  createToken: () => ({ token: 'token', expiresAt: '', url: '' }),
  enrol: () => ({ ok: true, value: {} as never }),
  renew: () => ({ ok: true, value: { certificateChainPem: 'chain' } }),
}

test('a restored controller issues nothing until it is confirmed, and then at once', () => {
  using temporary = openTemporaryState()
  const guard = restored(temporary)
  const guarded = guard.enrolment(enrolment)
  const nonceOf = guard.nonceOf(() => 'nonce')
  expect(guard.refusal()).toContain('restored from the backup of 2026-11-20T10:00:00.000Z')
  expect(refusalAt(temporary.path)).toBe(guard.refusal())
  expect(guarded.enrol({} as never)).toMatchObject({ ok: false, error: { kind: 'notConfirmed' } })
  expect(guarded.renew(AGENT, '', '')).toMatchObject({ ok: false, error: { kind: 'notConfirmed' } })
  expect(() => guarded.createToken('ada', 1)).toThrow(/confirm-restore/)
  expect(nonceOf(AGENT)).toBeUndefined()
  const authority = guard.authority({ issueAgentCertificate: () => ({ ok: true, value: {} }) } as never)
  expect(authority.issueAgentCertificate('', AGENT)).toMatchObject({ ok: false })

  // Another process confirms.
  confirmRestoration(temporary.path, ada)
  expect(guard.refusal()).toBeNull()
  expect(guarded.renew(AGENT, '', '')).toMatchObject({ ok: true })
  expect(guarded.createToken('ada', 1)).toMatchObject({ token: 'token' })
  expect(nonceOf(AGENT)).toBe('nonce')
  expect(authority.issueAgentCertificate('', AGENT)).toMatchObject({ ok: true })
})

test('a controller that never was in a backup issues, and has nothing to confirm', () => {
  using temporary = openTemporaryState()
  expect(guardOf(temporary).refusal()).toBeNull()
  expect(refusalAt(`${temporary.path}.missing`)).toBeNull()
  expect(() => reviewRestoration(`${temporary.path}.missing`)).toThrow(/there is no controller at/)
  expect(() => confirmRestoration(temporary.path, ada)).toThrow(/waits for no confirmation.*--rolled-back/)
  expect(temporary.state.counters.epoch()).toBe(1)
})

test('each confirmation begins an epoch above every one before, also of another restoration of the same backup', () => {
  using first = openTemporaryState()
  using second = openTemporaryState()
  for (const temporary of [first, second]) restored(temporary)
  const one = confirmRestoration(first.path, ada)
  const two = confirmRestoration(second.path, { ...ada, nowMs: ada.nowMs + 60_000 })
  expect(one.epoch).toBe(Math.floor(ada.nowMs / 1_000))
  expect(two.epoch).toBeGreaterThan(one.epoch)
  expect(first.state.counters.nextDelivery(AGENT)).toEqual({ epoch: one.epoch, sequence: 1 })
  // A clock that went back changes nothing about it.
  const later = confirmRestoration(first.path, { ...ada, nowMs: 5_000, rolledBack: true })
  expect(later.epoch).toBe(one.epoch + 1)
})

test('confirming is on the record and cancels what waited; what was sent is left to the agents', () => {
  using temporary = openTemporaryState()
  restored(temporary)
  const { state } = temporary
  for (const [id, reached] of [
    ['1', 'awaitingApproval'],
    ['2', 'queued'],
    ['3', 'sent'],
  ] as const) {
    insertAction(temporary, id.repeat(32), reached)
  }
  expect(reviewRestoration(temporary.path)).toMatchObject({ waiting: 2 })
  expect(confirmRestoration(temporary.path, ada)).toMatchObject({ cancelled: 2 })
  const states = state.actions.list({}, 10).map((row) => [row.command_id[0], row.state])
  expect(Object.fromEntries(states)).toEqual({ 1: 'cancelled', 2: 'cancelled', 3: 'sent' })
  expect(state.audit.last()).toMatchObject({ by: 'ada', action: 'controller.confirmRestore' })
  expect(state.audit.last()?.detail).toContain('the disk broke')
  expect(() => confirmRestoration(temporary.path, ada)).toThrow(/waits for no confirmation/)
})

function insertAction(
  { state }: TemporaryState,
  id: string,
  reached: 'awaitingApproval' | 'queued' | 'sent',
) {
  const expires_ms = NOW_MS + 600_000
  const common = {
    action: 'scanPath',
    class: 'R',
    created_ms: BACKUP_MS,
    expires_ms,
    requested_by: 'ada',
  } as const
  state.intents.insert({
    ...common,
    intent_id: id,
    bytes: Buffer.from('intent'),
    idempotency_key: null,
    request_hash: 'hash',
  })
  state.actions.insert({
    ...common,
    command_id: id,
    intent_id: id,
    leaf_index: 0,
    leaf: Buffer.from('leaf'),
    agent_id: AGENT,
    host_name: 'web-1',
    target: '{}',
    args: '{}',
    reason: 'a test',
    incident: null,
  })
  state.actions.step(id, { state: reached, at_ms: BACKUP_MS, by: 'ada', reason: '', proof: '{}' })
}

test('certificates and keysets that the backup does not know are told, and shown to who confirms', () => {
  using temporary = openTemporaryState()
  const guard = restored(temporary)
  const authorise = guard.authorise((fingerprint) => (fingerprint === 'known' ? 'ok' : 'unknown'))
  expect(authorise('known', AGENT)).toBe('ok')
  expect(authorise('strange', AGENT)).toBe('unknown')
  guard.hello(AGENT, { keysetVersion: 3 }, 3)
  guard.hello(AGENT, { keysetVersion: 4 }, 3)
  expect(reviewRestoration(temporary.path).alerts.map(({ action, subject }) => [action, subject])).toEqual([
    ['alert.controllerBehind', AGENT],
    ['alert.unknownSinceRestore', AGENT],
  ])
})

test('without a restoration an unknown certificate is nothing to tell: anybody may have one that was dropped', () => {
  using temporary = openTemporaryState()
  expect(guardOf(temporary).authorise(() => 'unknown')('strange', AGENT)).toBe('unknown')
  expect(temporary.state.audit.last()).toBeUndefined()
})
