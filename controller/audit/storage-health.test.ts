import { expect, test } from 'vitest'
import { createSilentLogger } from '../../shared/node/logger.ts'
import { createStorageHealth } from './storage-health.ts'

function createSetup() {
  const told: string[] = []
  const setup = { told, full: false, nowMs: 0 }
  const health = createStorageHealth({
    audit: {
      record(_by, action, subject, detail) {
        if (setup.full) throw Object.assign(new Error('database or disk is full'), { code: 'SQLITE_FULL' })
        told.push(`${action} ${subject}: ${detail}`)
      },
    },
    log: createSilentLogger(),
    nowMs: () => setup.nowMs,
  })
  return Object.assign(setup, { health })
}

test('a full disk is told once, shown while it lasts, and told again when it is over', () => {
  const setup = createSetup()
  const { health, told } = setup
  health.note('events', null)
  expect(health.problems()).toEqual([])
  for (let batch = 0; batch < 100; batch += 1)
    health.note('events', new Error('SQLITE_FULL: database or disk is full'))
  expect(health.problems()).toEqual(['events: the disk is full'])
  expect(told).toEqual(['alert.storeFailed events: the disk is full; agents keep what is not stored'])
  health.note('events', null)
  expect(health.problems()).toEqual([])
  expect(told.at(-1)).toMatch(/^alert.storeWorks events: can be written again/)
})

test('what the audit log cannot take either is told as soon as it can', () => {
  const setup = createSetup()
  const { health, told } = setup
  setup.full = true
  health.note('state', new Error('database or disk is full'))
  health.note('state', null)
  expect(health.problems()).toEqual(['state: the disk is full'])
  setup.full = false
  health.note('state', null)
  expect(health.problems()).toEqual([])
  expect(told).toEqual([expect.stringMatching(/^alert.storeWorks state: .* since 1970-01-01T00:00:00.000Z/)])
})
