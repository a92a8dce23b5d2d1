import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { readBootId, readNetworkNamespace } from './host.ts'
import {
  hashExecutable,
  isDead,
  listStats,
  openProcessByPid,
  parseCgroups,
  parseStat,
  readFacts,
  readNamespace,
  readStat,
  standing,
} from './processes.ts'

const fields = 'S 1 42 43 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 987654 1 2 3 4'
const line = (name: string, rest = fields) => Buffer.from(`77 (${name}) ${rest}\n`, 'latin1')

test('the fields of a stat line are those of proc(5)', () => {
  expect(parseStat(line('sh'))).toEqual({
    pid: 77,
    startTicks: 987_654,
    name: 'sh',
    state: 'S',
    parentPid: 1,
    sessionId: 43,
    threads: 3,
    kernelThread: false,
    exiting: false,
  })
})

test.each([') S 1 1 1', 'a) Z 0 (', '((', '\n', ' ', ') ', '', 'x\ty', '\xff\xfe'])(
  'a process that names itself %j cannot shift the fields',
  (name) => {
    expect(parseStat(line(name))).toMatchObject({ pid: 77, name, parentPid: 1, startTicks: 987_654 })
  },
)

test('whatever bytes a process names itself with, its own fields are read', () => {
  const names = fc.uint8Array({ maxLength: 15 }).map((bytes) => Buffer.from(bytes).toString('latin1'))
  fc.assert(
    fc.property(names, (name) => {
      expect(parseStat(line(name))).toMatchObject({ pid: 77, name, state: 'S', startTicks: 987_654 })
    }),
  )
})

test('arbitrary bytes are never more than no process', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
      const stat = parseStat(bytes)
      expect(stat === null || Number.isSafeInteger(stat.startTicks)).toBe(true)
    }),
  )
})

test.each([
  ['no fields', '77 (sh)'],
  ['a missing field', `77 (sh) ${fields.split(' ').slice(0, 19).join(' ')}`],
  ['a negative start', `77 (sh) ${fields.replace('987654', '-1')}`],
  ['a start that no number holds', `77 (sh) ${fields.replace('987654', '9'.repeat(17))}`],
  ['a pid of zero', `0 (sh) ${fields}`],
  ['no pid', `(sh) ${fields}`],
  ['a state of two letters', `77 (sh) ${fields.replace('S', 'SS')}`],
  ['a text that only ends like one', `42 (evil) R 1 1\n (x) ${fields}`.slice(4)],
  ['a line that is too long', `77 (${'a'.repeat(5_000)}) ${fields}`],
])('%s is not a stat line', (_what, text) => {
  expect(parseStat(Buffer.from(text))).toBeNull()
})

test('this process is found with its parents up to the first, its executable and its folder', () => {
  const facts = readFacts(process.pid)
  expect(facts?.parentPid).toBe(process.ppid)
  expect(facts?.ancestors[0]).toBe(process.ppid)
  expect(facts?.executable?.toString()).toBe(process.execPath)
  expect(facts?.workingDirectory?.toString()).toBe(process.cwd())
  expect(facts?.sameMounts).toBe(true)
  expect(facts?.cgroups.length).toBeGreaterThan(0)
  expect(listStats().get(process.pid)?.startTicks).toBe(facts?.startTicks)
})

test('a pid that nobody has is null', () => {
  expect(readStat(4_194_304)).toBeNull()
  expect(readFacts(4_194_304)).toBeNull()
  expect(openProcessByPid(4_194_304)).toBeNull()
})

test('the hash of a running executable is that of its file, and one that is too large is not read', async () => {
  const signal = AbortSignal.timeout(60_000)
  const sha256 = createHash('sha256').update(readFileSync('/proc/self/exe')).digest('hex')
  expect(await hashExecutable(process.pid, 1024 ** 3, signal)).toMatchObject({ kind: 'hashed', sha256 })
  expect(await hashExecutable(process.pid, 1_000, signal)).toMatchObject({ kind: 'unreadable' })
  expect(await hashExecutable(4_194_304, 1_000, signal)).toMatchObject({ kind: 'unreadable' })
})

test('cgroup paths may hold colons, and lines of another form are left out', () => {
  expect(parseCgroups('0::/a:b/c\n4:memory,cpu:/x\nnonsense\n1:name=systemd:/\n')).toEqual([
    '/a:b/c',
    '/x',
    '/',
  ])
})

test('boot and namespaces are told', () => {
  expect(readBootId()).toMatch(/^[0-9a-f-]{36}$/)
  expect(readNamespace('net')).toMatch(/^net:\[[0-9]+\]$/)
  expect(readNetworkNamespace()).toBe(readNamespace('net'))
  expect(readNamespace('net', 4_194_304)).toBeNull()
})

test('without pidfds a handle of a process that ended sends nothing', async () => {
  const child = spawn('/bin/sleep', ['60'], { stdio: 'ignore' })
  const handle = openProcessByPid(child.pid ?? 0)
  expect(handle?.exited()).toBe(false)
  expect(handle?.send('SIGKILL')).toBe('sent')
  await new Promise((resolve) => child.once('exit', resolve))
  expect(handle?.exited()).toBe(true)
  expect(handle?.send('SIGKILL')).toBe('gone')
})

test('a leader that exited before its other threads is not dead', () => {
  const stat = parseStat(line('sh', fields.replace('S', 'Z')))
  expect(stat && isDead(stat)).toBe(false)
  expect(stat && isDead({ ...stat, threads: 1 })).toBe(true)
})

test.each([
  ['T', 'still'],
  ['t', 'still'],
  ['Z', 'still'],
  ['D', 'blocked'],
  ['S', 'moving'],
  ['R', 'moving'],
])('a process in state %s is %s', (state, expected) => {
  const stat = parseStat(line('sh', fields.replace('S', state)))
  expect(stat && standing({ ...stat, threads: 1 })).toBe(expected)
})

test('a process with threads stands still only when all of them do', () => {
  const stat = readStat(process.pid)
  expect(stat && standing({ ...stat, state: 'T' })).toBe('moving')
})
