import fc from 'fast-check'
import { expect, test } from 'vitest'
import { DETECTIONS_PER_INCIDENT_MAX, GROUPING_WINDOW_MS, INCIDENTS_PER_HOST_MAX } from './correlate.ts'
import type { Finding } from './finding.ts'
import { findingOn, HOST_A, HOST_B, HOST_C, NOW_MS, processFinding } from './testing/findings.ts'
import { createMemoryGrouper } from './testing/memory-view.ts'

const indicator = { type: 'ipv4', name: '192.0.2.7' }
const sha256 = '5'.repeat(64)

interface Case {
  readonly name: string
  readonly first: Finding
  readonly second: Finding
  /** What the reason must say; null: the second is an incident of its own. */
  readonly because: RegExp | null
}

const CASES: readonly Case[] = [
  {
    name: 'the same process again',
    first: processFinding(HOST_A, [50, 40, 1], 0),
    second: processFinding(HOST_A, [50, 40, 1], 0),
    because: /^Same process: sh \(pid 50\) on host-a/,
  },
  {
    name: 'a sibling under one session leader',
    first: processFinding(HOST_A, [50, 40, 30, 1], 1),
    second: processFinding(HOST_A, [51, 40, 30, 1], 1),
    because: /^Same session: .* share the ancestor pid 40/,
  },
  {
    name: 'a sibling under an ancestor outside the session (two logins of one daemon)',
    first: processFinding(HOST_A, [50, 40, 30, 1], 1),
    second: processFinding(HOST_A, [61, 60, 30, 1], 1),
    because: null,
  },
  {
    name: 'a child that left the session of its detected parent',
    first: processFinding(HOST_A, [50, 40, 1], 0),
    second: processFinding(HOST_A, [70, 50, 40, 1], 0),
    because: /descends from pid 50 on host-a, which was detected here/,
  },
  {
    name: 'the parent, detected after its child that left the session',
    first: processFinding(HOST_A, [70, 50, 40, 1], 0),
    second: processFinding(HOST_A, [50, 40, 1], 0),
    because: /a process detected here descends from sh \(pid 50\)/,
  },
  {
    name: 'a shared session leader that is not among the told ancestors',
    first: processFinding(HOST_A, [50], 0, { sessionLeader: 'aaaaaaaa.0badb007.40.4000' }),
    second: processFinding(HOST_A, [51], 0, { sessionLeader: 'aaaaaaaa.0badb007.40.4000' }),
    because: /share the ancestor pid 40/,
  },
  {
    name: 'two processes that share only the first process of the host',
    first: processFinding(HOST_A, [50, 1], 1),
    second: processFinding(HOST_A, [60, 1], 1),
    because: null,
  },
  {
    name: 'anything, after the first process of the host itself was detected',
    first: processFinding(HOST_A, [1], 0),
    second: processFinding(HOST_A, [60, 1], 1),
    because: null,
  },
  {
    name: 'the same process ids claimed by another agent',
    first: processFinding(HOST_A, [50, 40, 1], 1),
    second: { ...processFinding(HOST_A, [50, 40, 1], 1), agentId: HOST_B, hostName: 'host-b' },
    because: null,
  },
  {
    name: 'the same indicator on another host',
    first: processFinding(HOST_A, [50, 40], 1, { indicator }),
    second: processFinding(HOST_B, [50, 40], 1, { indicator }),
    because: /^Same indicator 192\.0\.2\.7 \(ipv4\) was detected on host-a/,
  },
  {
    name: 'the same indicator in another tree of the same host',
    first: processFinding(HOST_A, [50, 40], 1, { indicator }),
    second: processFinding(HOST_A, [90, 80], 1, { indicator }),
    because: null,
  },
  {
    name: 'another type of indicator with the same name',
    first: processFinding(HOST_A, [50, 40], 1, { indicator }),
    second: processFinding(HOST_B, [50, 40], 1, { indicator: { ...indicator, type: 'domain' } }),
    because: null,
  },
  {
    name: 'the same file content on another host',
    first: processFinding(HOST_A, [50, 40], 1, { fileSha256: sha256 }),
    second: processFinding(HOST_B, [50, 40], 1, { fileSha256: sha256 }),
    because: /^Same file \(SHA-256 5+\) was detected on host-a/,
  },
  {
    name: 'the same indicator on another host after more than 24 quiet hours',
    first: processFinding(HOST_A, [50, 40], 1, { indicator }),
    second: processFinding(HOST_B, [50, 40], 1, {
      indicator,
      receivedMs: NOW_MS + 51 + GROUPING_WINDOW_MS,
    }),
    because: null,
  },
  {
    name: 'the same tree just inside 24 quiet hours',
    first: processFinding(HOST_A, [50, 40], 1),
    second: processFinding(HOST_A, [51, 40], 1, { receivedMs: NOW_MS + 50 + GROUPING_WINDOW_MS }),
    because: /^Same session/,
  },
  {
    name: 'a file without a process where the file was detected with one',
    first: processFinding(HOST_A, [50, 40], 1, { filePath: '/srv/x/a.bin', fileSha256: sha256 }),
    second: findingOn(HOST_A, { filePath: '/srv/y/b.bin', fileSha256: sha256 }),
    because: /^Same file content on host-a; the process of one/,
  },
  {
    name: 'a process with a file that was first detected without one',
    first: findingOn(HOST_A, { filePath: '/srv/x/a.bin' }),
    second: processFinding(HOST_A, [50, 40], 1, { filePath: '/srv/x/a.bin' }),
    because: /^Same file \/srv\/x\/a\.bin on host-a; the process of one/,
  },
  {
    name: 'two processes that only share a folder',
    first: processFinding(HOST_A, [50, 40], 1, { filePath: '/srv/x/a.bin' }),
    second: processFinding(HOST_A, [90, 80], 1, { filePath: '/srv/x/b.bin' }),
    because: null,
  },
  {
    name: 'a file without a process in the working directory of a process, within 30 seconds',
    first: processFinding(HOST_A, [50, 40], 1, { workingDirectory: '/srv/x' }),
    second: findingOn(HOST_A, { filePath: '/srv/x/b.bin', eventMs: NOW_MS + 29_000 }),
    because: /^Weaker reason: within 30 seconds of a detection in the same folder \/srv\/x/,
  },
  {
    name: 'a file without a process in the same folder, later than 30 seconds',
    first: processFinding(HOST_A, [50, 40], 1, { workingDirectory: '/srv/x' }),
    second: findingOn(HOST_A, { filePath: '/srv/x/b.bin', eventMs: NOW_MS + 31_000 }),
    because: null,
  },
  {
    name: 'two files in the root folder',
    first: findingOn(HOST_A, { filePath: '/a.bin' }),
    second: findingOn(HOST_A, { filePath: '/b.bin' }),
    because: null,
  },
  {
    name: 'the same rule again, knowing neither process nor file',
    first: findingOn(HOST_A, { ruleId: 'cordon.tamper' }),
    second: findingOn(HOST_A, { ruleId: 'cordon.tamper' }),
    because: /^Weaker reason: the same rule/,
  },
  {
    name: 'the same folder on another host',
    first: findingOn(HOST_A, { filePath: '/srv/x/a.bin' }),
    second: findingOn(HOST_B, { filePath: '/srv/x/a.bin' }),
    because: null,
  },
]

test.each(CASES)('grouping: $name', ({ first, second, because }) => {
  const grouper = createMemoryGrouper()
  expect(grouper.take(first).decision.kind).toBe('open')
  const { decision } = grouper.take(second)
  if (because === null) expect(decision.kind).toBe('open')
  else expect(decision).toMatchObject({ kind: 'join', incident: 1, because: expect.stringMatching(because) })
})

test('of several incidents that fit equally well the oldest is joined and the others are told as related', () => {
  const grouper = createMemoryGrouper()
  grouper.take(processFinding(HOST_A, [50], 0, { indicator }))
  grouper.take(processFinding(HOST_A, [90], 0, { indicator }))
  const { decision } = grouper.take(processFinding(HOST_B, [10], 0, { indicator }))
  expect(decision).toMatchObject({ kind: 'join', incident: 1 })
  expect(decision.kind === 'join' && decision.related).toEqual([
    { incident: 2, because: expect.stringMatching(/Same indicator/) },
  ])
})

test('a host’s own process tree is a stronger reason than an indicator seen elsewhere', () => {
  const grouper = createMemoryGrouper()
  grouper.take(processFinding(HOST_A, [50], 0, { indicator }))
  grouper.take(processFinding(HOST_B, [60, 40], 1))
  const { decision } = grouper.take(processFinding(HOST_B, [61, 40], 1, { indicator }))
  expect(decision).toMatchObject({
    kind: 'join',
    incident: 2,
    because: expect.stringMatching(/^Same session/),
  })
  expect(decision.kind === 'join' && decision.related.map((related) => related.incident)).toEqual([1])
})

test('a full incident takes no more', () => {
  const grouper = createMemoryGrouper()
  for (let count = 0; count < DETECTIONS_PER_INCIDENT_MAX - 1; count += 1) {
    grouper.take(processFinding(HOST_A, [50], 0))
  }
  expect(grouper.take(processFinding(HOST_A, [50], 0)).incident).toBe(1)
  expect(grouper.take(processFinding(HOST_A, [50], 0)).incident).toBe(2)
})

test('a host that floods the controller with unrelated detections does not flood it with incidents', () => {
  const grouper = createMemoryGrouper()
  for (let pid = 10; pid < 10 + 3 * INCIDENTS_PER_HOST_MAX; pid += 1) {
    grouper.take(processFinding(HOST_A, [pid], 0))
  }
  expect(grouper.incidents.length).toBe(INCIDENTS_PER_HOST_MAX)
  expect(grouper.take(processFinding(HOST_A, [5_000], 0)).decision).toMatchObject({
    because: expect.stringMatching(/only because host-a already has 100 active incidents/),
  })
  expect(grouper.take(processFinding(HOST_B, [10], 0)).decision.kind).toBe('open')
})

test.each([
  { entityId: 'not an entity id', ancestors: ['', '....', 'a.b.NaN.d'], sessionAncestors: 99 },
  { filePath: '', workingDirectory: '////' },
  { filePath: 'no slash at all', fileSha256: '' },
  { indicator: { type: '', name: '\0' } },
])('odd values %j group nothing that they should not', (odd) => {
  const grouper = createMemoryGrouper()
  grouper.take(processFinding(HOST_A, [50, 40], 1, { indicator, filePath: '/srv/x/a.bin' }))
  expect(grouper.take(findingOn(HOST_B, odd)).decision.kind).toBe('open')
})

/** Two attacks with nothing in common, each on two hosts that share an indicator; any order of arrival. */
test('separate attacks are never mixed, whatever the order in which their detections arrive', () => {
  const attack = (hosts: readonly [string, string], base: number, name: string): readonly Finding[] =>
    hosts.flatMap((host) => [
      processFinding(host, [base, base - 5, 1], 1, { indicator: { type: 'ipv4', name } }),
      processFinding(host, [base + 1, base, base - 5, 1], 2, { filePath: `/srv/${name}/a` }),
      processFinding(host, [base + 2, base + 1, base, base - 5, 1], 0, { fileSha256: name.padEnd(64, '0') }),
      findingOn(host, { filePath: `/srv/${name}/a` }),
    ])
  const first = attack([HOST_A, HOST_B], 100, '192.0.2.1')
  const second = attack([HOST_B, HOST_C], 200, '192.0.2.2')
  const all = [...first, ...second]
  fc.assert(
    fc.property(fc.shuffledSubarray(all, { minLength: all.length }), (arrived) => {
      const grouper = createMemoryGrouper()
      for (const finding of arrived) grouper.take(finding)
      for (const { members } of grouper.incidents) {
        const attacks = new Set(members.map((member) => first.includes(member)))
        expect(attacks.size).toBe(1)
      }
    }),
    { numRuns: 300 },
  )
})

test('one session’s detections are one incident, whatever the order in which they arrive', () => {
  const all = [
    processFinding(HOST_A, [100, 90, 80, 1], 1),
    processFinding(HOST_A, [101, 100, 90, 80, 1], 2),
    processFinding(HOST_A, [102, 90, 80, 1], 1),
    processFinding(HOST_A, [90, 80, 1], 0),
  ]
  fc.assert(
    fc.property(fc.shuffledSubarray(all, { minLength: all.length }), (arrived) => {
      const grouper = createMemoryGrouper()
      for (const finding of arrived) grouper.take(finding)
      expect(grouper.incidents.length).toBe(1)
    }),
  )
})
