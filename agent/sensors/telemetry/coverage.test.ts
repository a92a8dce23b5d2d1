import { expect, test } from 'vitest'
import { coverageOf, type SourceState } from './coverage.ts'
import { ROWS, SOURCES } from './rows.ts'

const all = (inForce: (source: string) => boolean): SourceState[] =>
  SOURCES.map((source) => ({ source, inForce: inForce(source), reason: `because of ${source}` }))

const countOf = (states: readonly SourceState[]) => {
  const counts = { yes: 0, partly: 0, no: 0 }
  for (const row of coverageOf(states)) counts[row.seen] += 1
  return counts
}

test('the table has the 34 rows of the EDR Telemetry Project, each once', () => {
  expect(ROWS).toHaveLength(34)
  expect(new Set(ROWS.map(({ name }) => name)).size).toBe(34)
})

test('with every source in force all rows are seen, by the best source of each', () => {
  expect(countOf(all(() => true))).toEqual({ yes: 34, partly: 0, no: 0 })
  const creation = coverageOf(all(() => true)).find(({ name }) => name === 'Process creation')
  expect(creation).toEqual({
    category: 'Process',
    name: 'Process creation',
    seen: 'yes',
    source: 'ebpf',
    reason: 'because of ebpf',
  })
})

test('what a fallback misses is said, and why the better source is not in force', () => {
  const rows = coverageOf(all((source) => ['polling', 'chokidar', 'scanner', 'agent'].includes(source)))
  expect(rows.find(({ name }) => name === 'Process creation')).toMatchObject({
    seen: 'partly',
    source: 'polling',
    reason: 'misses what lives less than a second; ebpf: because of ebpf',
  })
  expect(rows.find(({ name }) => name === 'DNS query')).toMatchObject({
    seen: 'no',
    source: null,
    reason: 'ebpf-packets: because of ebpf-packets',
  })
})

test.each([
  ['ebpf', 'yes', 'because of fanotify'],
  ['audit', 'yes', 'because of fanotify'],
  ['proc-connector', 'partly', 'misses who did it, when that ended at once'],
  ['polling', 'partly', 'misses who did it, when that ended at once'],
])('who changed a file is known when processes are seen by %s: %s', (layer, seen, reason) => {
  const rows = coverageOf(all((source) => [layer, 'fanotify'].includes(source)))
  for (const name of ['File deletion', 'Service deleted', 'User account modified'])
    expect(rows.find((row) => row.name === name)).toMatchObject({ seen, source: 'fanotify', reason })
})

test('without any source nothing is claimed', () => {
  expect(countOf([])).toEqual({ yes: 0, partly: 0, no: 34 })
})
