import { expect, test } from 'vitest'
import type { Action, Detection, ProcessNode } from '../api/types.ts'
import { processArguments, type TreeFacts, type TreeRow, treeRows, worstRow } from './tree.ts'

const AGENT = 'a1b2c3d4e5f60718293a4b5c6d7e8f90'
const BOOT = '0badcafe-1111-4222-8333-444455556666'
const entity = (pid: number) => `a1b2c3d4.0badcafe.${pid}.${pid * 10}`

function node(pid: number, parent: number | null, more: Partial<ProcessNode> = {}): ProcessNode {
  return {
    entityId: entity(pid),
    parentEntityId: parent === null ? null : entity(parent),
    pid,
    executable: `/usr/bin/p${pid}`,
    commandLine: null,
    user: null,
    sha256: null,
    startedAt: `2026-01-02T03:04:${String(pid % 60).padStart(2, '0')}.000Z`,
    endedAt: null,
    detections: [],
    ...more,
  }
}

function detection(pid: number, severity: Detection['severity'], ruleName: string): Detection {
  return { entityId: entity(pid), severity, ruleName } as Detection
}

const rowsOf = (facts: Partial<TreeFacts>) =>
  treeRows({
    nodes: [],
    hosts: [{ agentId: AGENT, hostName: 'web-1' }],
    detections: [],
    actions: [],
    loaded: new Map(),
    switched: new Map(),
    ...facts,
  })
const told = (rows: readonly TreeRow[]) =>
  rows.map((row) =>
    row.kind === 'host'
      ? row.hostName
      : row.kind === 'group'
        ? `${'.'.repeat(row.depth)}${row.name} x${row.count}`
        : `${'.'.repeat(row.depth)}${row.node.pid}${row.hot ? '!' : ''}`,
  )

test('children stand under their parents by time, and what leads to a detection is hot', () => {
  const nodes = [node(1, null), node(3, 1), node(2, 1), node(5, 2), node(4, 2)]
  const rows = rowsOf({ nodes, detections: [detection(4, 'high', 'Rule')] })
  expect(told(rows)).toEqual(['web-1', '1!', '.2!', '..4!', '..5', '.3'])
  expect(rows[3]).toMatchObject({ signal: 'Rule', severity: 'high', last: false, hotAfter: false })
})

test('the most severe signal is told first, and how many more there are', () => {
  const detections = [
    detection(1, 'low', 'Low'),
    detection(1, 'critical', 'Worst'),
    detection(1, 'high', 'High'),
  ]
  expect(rowsOf({ nodes: [node(1, null)], detections })[1]).toMatchObject({
    signal: 'Worst',
    severity: 'critical',
    moreSignals: 2,
  })
})

test('quiet siblings of one program share a row that opens', () => {
  const quiet = [2, 3, 4, 5].map((pid) => node(pid, 1, { executable: '/bin/true' }))
  const nodes = [node(1, null), ...quiet, node(6, 1)]
  const closed = rowsOf({ nodes })
  expect(told(closed)).toEqual(['web-1', '1', '.6', '.true x4'])
  const switched = new Map([[closed.at(-1)?.key ?? '', true]])
  expect(told(rowsOf({ nodes, switched }))).toEqual([
    'web-1',
    '1',
    '.6',
    '.true x4',
    '..2',
    '..3',
    '..4',
    '..5',
  ])
})

test('a process that is closed hides what descends from it; one that is opened shows what was loaded', () => {
  const nodes = [node(1, null), node(2, 1), node(3, 2)]
  expect(told(rowsOf({ nodes, switched: new Map([[entity(2), false]]) }))).toEqual(['web-1', '1', '.2'])
  const loaded = new Map([[entity(3), [node(4, null)]]])
  expect(told(rowsOf({ nodes, loaded }))).toEqual(['web-1', '1', '.2', '..3', '...4'])
})

test('only a kill that is done marks its process', () => {
  const kill = (pid: number, state: Action['state']) =>
    ({
      action: 'killProcess',
      state,
      agentId: AGENT,
      target: { kind: 'process', pid, startTicks: pid * 10, bootId: BOOT, executableSha256: null },
    }) as Action
  const rows = rowsOf({ nodes: [node(1, null), node(2, 1)], actions: [kill(1, 'failed'), kill(2, 'done')] })
  expect(rows.flatMap((row) => (row.kind === 'process' ? [row.killed] : []))).toEqual([false, true])
})

test('the most severe finding is looked at first, else the first process', () => {
  const finding = (pid: number, severity: Detection['severity']) =>
    ({ entityId: entity(pid), severity, ruleName: severity }) as Detection
  const nodes = [node(1, null), node(2, 1), node(3, 2), node(4, 3)]
  const detections = [finding(2, 'high'), finding(3, 'critical'), finding(4, 'critical')]
  expect(worstRow(rowsOf({ nodes, detections }))?.node.pid).toBe(3)
  expect(worstRow(rowsOf({ nodes }))?.node.pid).toBe(1)
  expect(worstRow([])).toBeUndefined()
})

test('a ring and a very long chain end', () => {
  expect(told(rowsOf({ nodes: [node(1, 2), node(2, 1)] }))).toEqual(['web-1'])
  const chain = Array.from({ length: 20_000 }, (_, index) => node(index + 1, index === 0 ? null : index))
  expect(rowsOf({ nodes: chain }).length).toBe(5_000)
})

test('arguments are what follows the program; another text stays whole', () => {
  expect(processArguments(node(1, null, { commandLine: '/usr/bin/p1 -c x y' }))).toBe('-c x y')
  expect(processArguments(node(1, null, { commandLine: 'renamed itself' }))).toBe('renamed itself')
})
