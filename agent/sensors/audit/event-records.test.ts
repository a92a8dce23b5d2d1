import { expect, test } from 'vitest'
import type { SensorRecord } from '../records.ts'
import { createAssembly, RECORD_TYPES } from './assembly.ts'
import { type ConfigurationChange, createEventRecords } from './event-records.ts'
import { parseSocketAddress } from './socket-table.ts'

/** No process has such a pid, so that nothing is looked up in /proc. */
const pid = 4_194_305

function tell(...records: readonly (readonly [type: number, body: string])[]) {
  const told: SensorRecord[] = []
  const changes: ConfigurationChange[] = []
  const add = createEventRecords({
    keyOf: (one) => (one === pid ? { pid, startTicks: 9 } : null),
    parentOf: () => 0,
    sessionOf: () => 3,
    isExcluded: (one) => one === 666,
    isProtected: (one) => one === 77,
    add: (record) => told.push(record),
    configurationChanged: (change) => changes.push(change),
    nowMs: () => 0,
  })
  const assembly = createAssembly({ add, nowMs: () => 0 })
  records.forEach(([type, body]) => {
    assembly.add(type, Buffer.from(`audit(1700000000.000:1): ${body}`, 'latin1'))
  })
  assembly.finish()
  return Object.assign(told, { changes })
}

const call = (syscall: number, changes: Readonly<Record<string, string | number>> = {}) => {
  const fields = {
    arch: 'c000003e',
    syscall,
    success: 'yes',
    exit: 0,
    a0: 0,
    a1: 0,
    a2: 0,
    a3: 0,
    items: 0,
    ppid: 1,
    pid,
    auid: 1000,
    uid: 1001,
    gid: 1002,
    euid: 0,
    egid: 5,
    tty: 'pts3',
    ses: 2,
    exe: '"/usr/bin/x"',
    key: '"other"',
    ...changes,
  }
  const text = Object.entries(fields).map(([name, value]) => `${name}=${value}`)
  return [RECORD_TYPES.systemCall, text.join(' ')] as const
}

test('an exec is told with its arguments and circumstances, also when another rule asked for it first', () => {
  const [exec] = tell(
    call(59),
    [RECORD_TYPES.execve, 'argc=2 a0="x" a1=FF'],
    [RECORD_TYPES.workingDirectory, 'cwd="/srv"'],
  )
  expect(exec).toMatchObject({
    kind: 'exec',
    process: { pid, startTicks: 9 },
    userId: 1001,
    groupId: 1002,
    sessionId: 3,
    executable: '/usr/bin/x',
    arguments: ['x', new Uint8Array([0xff])],
    argumentsTruncated: false,
    workingDirectory: '/srv',
    file: null,
    circumstances: {
      effectiveUserId: 0,
      effectiveGroupId: 5,
      loginUserId: 1000,
      terminal: { major: 136, minor: 3 },
      fileless: null,
    },
  })
})

test.each([
  [{ exe: Buffer.from('/memfd:x (deleted)').toString('hex').toUpperCase() }, 'memory-file', '/memfd:x'],
  [{ exe: Buffer.from('/tmp/x (deleted)').toString('hex').toUpperCase() }, 'deleted-file', '/tmp/x'],
  [{}, 'descriptor', '/usr/bin/x'],
])('a program that no path leads to is told as such: %o', (changes, fileless, executable) => {
  const [exec] = tell(call(322, changes), [RECORD_TYPES.path, 'item=0 name="/dev/fd/3" nametype=NORMAL'])
  expect(exec).toMatchObject({ executable, circumstances: { fileless }, argumentsTruncated: true })
})

test('a 32-bit program is understood by its own numbers, also where socketcall(2) hides the call', () => {
  const b32 = { arch: '40000003' }
  expect(tell(call(11, b32))[0]?.kind).toBe('exec')
  // setreuid(2) with 16-bit users: -1 is 0xffff.
  expect(tell(call(70, { ...b32, a0: 'ffff', a1: '3e8' }))[0]).toMatchObject({ requested: [-1, 1000] })
  const connect = tell(
    call(102, { ...b32, a0: 3, a1: 'ff8e1230' }),
    [RECORD_TYPES.socketCall, 'nargs=3 a0=5 a1=1 a2=10'],
    [RECORD_TYPES.socketAddress, 'saddr=020001BBC00002010000000000000000'],
  )
  expect(connect[0]).toMatchObject({ kind: 'connect', destinationAddress: '192.0.2.1', destinationPort: 443 })
})

test('a connect is told by how it returned, and only of addresses with a port', () => {
  const inet = [RECORD_TYPES.socketAddress, 'saddr=020001BBC00002010000000000000000'] as const
  const outcomeOf = (exit: number) => (tell(call(42, { exit }), inet)[0] as { outcome?: string })?.outcome
  expect([0, -115, -111].map(outcomeOf)).toEqual(['success', 'unknown', 'failure'])
  expect(tell(call(42), [RECORD_TYPES.socketAddress, 'saddr=01002F746D702F78'])).toHaveLength(0)
  expect(tell(call(42), [RECORD_TYPES.socketAddress, 'saddr=02000000C0000201'])).toHaveLength(0)
})

test('a process that looks into another is told with its target, as the kernel numbers it', () => {
  expect(tell(call(101, { a0: 10, a1: 5 }), [RECORD_TYPES.objectPid, 'opid=99 oauid=-1'])[0]).toMatchObject({
    kind: 'process-access',
    operation: 'ptrace-attach',
    target: { pid: 99, startTicks: null },
  })
  expect(tell(call(311, { a0: 'ff', exit: -1 }))[0]).toMatchObject({
    operation: 'process_vm_writev',
    target: { pid: 255 },
    result: -1,
  })
  // PTRACE_CONT is nothing to tell.
  expect(tell(call(101, { a0: 7, a1: 5 }))).toHaveLength(0)
})

test('signals are told only when they are for the agent', () => {
  expect(tell(call(62, { a0: '4d', a1: 9 }))[0]).toMatchObject({
    kind: 'tamper',
    reason: expect.stringContaining("signal 9 to the agent's process 77"),
  })
  expect(tell(call(62, { a0: 'ffffffb3', a1: 15 }))).toHaveLength(1)
  expect(tell(call(234, { a0: '4d', a1: '4e', a2: 6 }))[0]).toMatchObject({
    reason: expect.stringContaining('signal 6'),
  })
  expect(tell(call(62, { a0: '4d', a1: 0 }))).toHaveLength(0)
  expect(tell(call(62, { a0: '4e', a1: 9 }))).toHaveLength(0)
})

test('modules, namespaces and modes of files are told with what audit knows', () => {
  expect(tell(call(313, { a0: 3 }), [RECORD_TYPES.kernelModule, 'name="evil"'])[0]).toMatchObject({
    kind: 'module',
    operation: 'load',
    name: 'evil',
  })
  expect(tell(call(56, { a0: '10000011', exit: 7 }))[0]).toMatchObject({
    kind: 'namespace',
    operation: 'clone',
    flags: 0x1000_0000,
  })
  const relative = tell(
    call(90, { a1: '9ed' }),
    [RECORD_TYPES.workingDirectory, 'cwd="/opt"'],
    [RECORD_TYPES.path, 'item=0 name="a" inode=1 dev=fe:00 nametype=NORMAL'],
  )
  expect(relative[0]).toMatchObject({ operation: 'mode', path: '/opt/a', mode: 0o4755 })
})

test('what an excluded process does is left out', () => {
  expect(tell(call(59, { pid: 666 }))).toHaveLength(0)
})

test('rules of Cordon that somebody deletes and audit switched off are told, other changes are not', () => {
  const sender = [
    RECORD_TYPES.systemCall,
    'arch=c000003e syscall=44 pid=50 exe="/usr/sbin/auditctl"',
  ] as const
  const removed = [RECORD_TYPES.configurationChange, 'op=remove_rule key="cordon" list=4 res=1'] as const
  expect(tell(removed, sender).changes).toMatchObject([
    { kind: 'rule-removed', process: { pid: 50 }, executable: '/usr/sbin/auditctl' },
  ])
  const off = [RECORD_TYPES.configurationChange, 'op=set audit_enabled=0 old=1 auid=0 res=1'] as const
  expect(tell(off).changes).toMatchObject([{ kind: 'switched-off', process: null }])
  const foreign = [RECORD_TYPES.configurationChange, 'op=remove_rule key="theirs" list=4 res=1'] as const
  expect(tell(foreign).changes).toEqual([])
})

const said = (type: number, text: string) => [type, `pid=${pid} uid=0 auid=0 ses=1 msg='${text}'`] as const

test.each([
  [
    1105,
    'op=PAM:session_open acct="root" exe="/usr/sbin/sshd" hostname=? addr=192.0.2.7 terminal=ssh res=success',
    { action: 'logon', service: 'sshd', remote: '192.0.2.7', terminal: 'ssh' },
  ],
  [
    1106,
    'op=PAM:session_close acct="root" exe="/usr/sbin/sshd" addr=192.0.2.7 terminal=ssh res=success',
    { action: 'logoff' },
  ],
  [
    1105,
    'op=PAM:session_open acct="root" exe="/usr/bin/sudo" hostname=? addr=? terminal=/dev/pts/1 res=success',
    { action: 'privilege-elevated', remote: null },
  ],
  [
    1100,
    'op=PAM:authentication acct="bob" exe="/usr/sbin/sshd" addr=192.0.2.7 res=failed',
    { action: 'logon-failed', account: 'bob' },
  ],
  [1109, 'op=PAM:bad_ident acct="?" exe="/usr/bin/login" addr=? res=failed', { action: 'logon-failed' }],
  [
    1112,
    'op=login acct=FF00 exe="/usr/sbin/sshd" res=failed',
    { action: 'logon-failed', account: new Uint8Array([0xff, 0]) },
  ],
])('message %i is told as what it means', (type, text, expected) => {
  expect([...tell(said(type, text))]).toMatchObject([
    { kind: 'logon', source: 'audit', process: { pid }, ...expected },
  ])
})

test.each([
  [1112, 'op=login acct="root" res=success'],
  [1105, 'op=PAM:session_open acct="root" res=failed'],
  [1103, 'op=PAM:setcred acct="root" res=success'],
  [1114, 'op=add-user acct="x" res=success'],
  [1123, 'cwd="/" cmd="id" res=success'],
])('message %i says nothing that is not told otherwise', (type, text) => {
  expect(tell(said(type, text))).toHaveLength(0)
})

test('a failure that sshd tells after PAM did is one failure', () => {
  const failed = 'acct="bob" exe="/usr/sbin/sshd" res=failed'
  expect(tell(said(1100, failed), said(1112, failed))).toHaveLength(1)
  expect(tell(said(1100, failed), said(1100, failed))).toHaveLength(2)
})

test('hostile events make no record that lies, and never throw', () => {
  const bodies = [
    '',
    '=',
    'arch=zz syscall=59 pid=1',
    'arch=c000003e syscall=-1 pid=1',
    'arch=c000003e syscall=59 pid=0',
  ]
  for (const body of bodies) expect(tell([RECORD_TYPES.systemCall, body])).toHaveLength(0)
  for (const syscall of [41, 42, 43, 49, 50, 56, 59, 62, 90, 92, 101, 105, 165, 272, 310, 313, 319, 321]) {
    const odd = call(syscall, {
      a0: 'ffffffffffffffff',
      a1: 'zz',
      a2: '',
      exit: 'x',
      exe: '(null)',
      tty: '"',
    })
    const paths = [RECORD_TYPES.path, 'name=(null) inode=x dev=zz:zz'] as const
    expect(() => tell(odd, paths, [RECORD_TYPES.socketAddress, 'saddr=0A00'])).not.toThrow()
  }
  for (const text of ["'", "''", "op='", `acct="`])
    expect(() => tell([1100, `pid=1 msg=${text}`])).not.toThrow()
})

test('socket addresses that are cut are none', () => {
  for (let length = 0; length < 28; length++) {
    const bytes = Buffer.alloc(length)
    if (length > 0) bytes[0] = 10
    expect(parseSocketAddress(bytes) !== null).toBe(length >= 24)
  }
})
