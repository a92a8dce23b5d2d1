import { expect, test } from 'vitest'
import type { SensorStatus } from '../../../shared/protocol/messages.ts'
import { coverageOf } from './coverage.ts'
import { sourceStates } from './source-states.ts'

const sensor = (name: string, inForce: boolean): SensorStatus => ({
  name,
  inForce,
  reason: `because of ${name}`,
  seen: 0,
  lost: 0,
})
const agentItself = [
  { source: 'scanner', inForce: true, reason: '' },
  { source: 'agent', inForce: true, reason: '' },
] as const
const whole = { systemCalls: 0, packets: 0, signals: 0 }
const probed = { probed: 1, problem: null }

function count(layers: readonly string[], features: typeof whole | null, pam = probed) {
  const status = layers.map((name) => sensor(name, true))
  const rows = coverageOf([...sourceStates(status, features, pam), ...agentItself])
  const counts = { yes: 0, partly: 0, no: 0 }
  for (const { seen } of rows) counts[seen] += 1
  return { counts, rows }
}

test.each([
  [['ebpf', 'fanotify', 'logon-files'], { yes: 34, partly: 0, no: 0 }],
  [['audit', 'fanotify', 'logon-files'], { yes: 21, partly: 10, no: 3 }],
  [['ebpf-core', 'fanotify', 'logon-files'], { yes: 20, partly: 5, no: 9 }],
  [['proc-connector', 'fanotify', 'logon-files'], { yes: 9, partly: 14, no: 11 }],
  [['polling', 'chokidar', 'logon-files'], { yes: 2, partly: 22, no: 10 }],
])('with %j in force the table says what is seen', (layers, counts) => {
  const features = layers.includes('ebpf') ? whole : null
  expect(count(layers, features).counts).toEqual(counts)
})

test('a part of the kernel programs that the kernel refuses takes its rows away, and says why', () => {
  const refused = { systemCalls: 0, packets: 1, signals: 0 }
  const { rows } = count(['ebpf', 'fanotify'], refused)
  expect(rows.find(({ name }) => name === 'DNS query')).toMatchObject({
    seen: 'no',
    reason: 'ebpf-packets: the kernel refuses it: operation not permitted',
  })
  expect(rows.find(({ name }) => name === 'Socket listen')).toMatchObject({ seen: 'yes' })
})

test('without a library of PAM logons are told from files, in part', () => {
  const { rows } = count(['ebpf', 'fanotify', 'logon-files'], whole, { probed: 0, problem: null })
  expect(rows.find(({ name }) => name === 'User logon')).toMatchObject({
    seen: 'partly',
    source: 'logon-files',
    reason: 'misses what writes no wtmp; pam-probes: there is no library of PAM',
  })
})
