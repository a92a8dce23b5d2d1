import { expect, test } from 'vitest'
import { createAuditLog } from '../audit/audit-log.ts'
import { NOW_MS } from '../correlate/testing/findings.ts'
import { openTemporaryState } from '../state/testing/temporary-state.ts'
import { createKeysetService, type KeysetKeeper } from './keyset-service.ts'

function createKeeper(): KeysetKeeper {
  let current = { version: 1, keyset: 'MQ==', rootSignature: 'cw==' }
  return {
    current: () => current,
    replace(signed) {
      if (signed.rootSignature !== 'cw==')
        return { ok: false, error: { kind: 'invalid', reason: 'not signed' } }
      current = { ...signed, version: current.version + 1 }
      return { ok: true, value: { version: current.version } }
    },
  }
}

test('a newer keyset goes to every agent before what it sets free, and is on the record', () => {
  using temporary = openTemporaryState()
  const audit = createAuditLog(temporary.state, () => NOW_MS)
  const order: string[] = []
  const service = createKeysetService({
    keeper: createKeeper(),
    broadcast: (message) => order.push(`${message.kind} ${message.kind === 'keyset' && message.keyset}`),
    changed: () => order.push('changed'),
    audit,
  })
  expect(service.replace('Mg==', 'cw==', 'ada')).toEqual({ ok: true, value: { version: 2 } })
  expect(order).toEqual(['keyset Mg==', 'changed'])
  expect(service.current()).toEqual({ version: 2, keyset: 'Mg==', rootSignature: 'cw==' })
  expect(audit.list(1)).toMatchObject([{ action: 'keyset.replace', by: 'ada' }])
})

test('a keyset that is refused changes nothing, reaches nobody, and is on the record', () => {
  using temporary = openTemporaryState()
  const audit = createAuditLog(temporary.state, () => NOW_MS)
  const service = createKeysetService({
    keeper: createKeeper(),
    broadcast: () => expect.unreachable(),
    changed: () => expect.unreachable(),
    audit,
  })
  expect(service.replace('Mg==', 'xx==', 'ada')).toEqual({
    ok: false,
    error: { kind: 'invalid', reason: 'not signed' },
  })
  expect(service.current().version).toBe(1)
  expect(audit.list(1)).toMatchObject([{ action: 'keyset.refused', detail: 'not signed' }])
})
