import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { SensorRecord } from '../records.ts'
import type { ScriptChunk } from './raw-activity.ts'
import { decodeRecords } from './record-decoder.ts'

function decode(buffer: Buffer) {
  const records: SensorRecord[] = []
  const scripts: ScriptChunk[] = []
  const asked: number[][] = []
  const { whole } = decodeRecords(buffer, buffer.length, {
    wallOffsetMs: 1_000,
    hostNamespaces: { mnt: 1 },
    add: (record) => records.push(record),
    addConnection: () => undefined,
    addActivity: (record) => records.push(record),
    addScript: (chunk) => scripts.push(chunk),
    translatePid(callerPid, pid) {
      asked.push([callerPid, pid])
      return pid === 7 ? 700 : null
    },
  })
  return { records, scripts, asked, whole }
}

interface Made {
  readonly operation: number
  readonly result?: bigint
  readonly values?: readonly bigint[]
  readonly first?: Buffer | string
  readonly second?: Buffer | string
  readonly isCallersPath?: boolean
}

function activity({
  operation,
  result = 0n,
  values = [],
  first = '',
  second = '',
  isCallersPath,
}: Made): Buffer {
  const texts = [Buffer.from(first as string), Buffer.from(second as string)] as const
  const length = 104 + texts[0].length + texts[1].length
  const bytes = Buffer.alloc((length + 7) & ~7)
  bytes.writeUInt32LE(length, 0)
  bytes[4] = 11
  bytes.writeUInt32LE(42, 16)
  bytes.writeBigUInt64LE(9n, 24)
  bytes.writeUInt16LE(operation, 40)
  bytes.writeUInt16LE(texts[0].length, 42)
  bytes.writeUInt16LE(texts[1].length, 44)
  bytes.writeUInt16LE(isCallersPath ? 1 : 0, 46)
  bytes.writeBigInt64LE(result, 48)
  values.forEach((value, index) => {
    bytes.writeBigUInt64LE(value, 56 + 8 * index)
  })
  Buffer.concat(texts).copy(bytes, 104)
  return bytes
}

const process = { pid: 42, startTicks: 9 }

test('a request of ptrace is told by what it does, and what only watches is not told', () => {
  const { records } = decode(
    Buffer.concat([
      activity({ operation: 2, values: [16n, 5n, 0n], result: -1n }),
      activity({ operation: 2, values: [5n, 5n, 0n] }),
      activity({ operation: 2, values: [1n, 5n, 0n], result: 0x7fffn }),
      activity({ operation: 2, values: [24n, 5n, 0n] }),
    ]),
  )
  expect(records).toMatchObject([
    {
      kind: 'process-access',
      operation: 'ptrace-attach',
      result: -1,
      target: { pid: 5, startTicks: null },
      process,
    },
    { operation: 'ptrace-write', result: 0 },
    { operation: 'ptrace-read', result: 0 },
  ])
})

test('a pid of another namespace is translated, and told as it is when nobody knows it', () => {
  const { records, asked } = decode(
    Buffer.concat([
      activity({ operation: 3, values: [0n, 7n, 1n] }),
      activity({ operation: 4, values: [0n, 8n, 2n] }),
    ]),
  )
  expect(asked).toEqual([
    [42, 7],
    [42, 8],
  ])
  expect(records).toMatchObject([
    { operation: 'process_vm_readv', target: { pid: 700 } },
    { operation: 'process_vm_writev', target: { pid: 8 } },
  ])
})

test.each([
  ['/proc/7/mem', 1n, { kind: 'process-access', operation: 'mem-read', target: { pid: 7 } }],
  ['/proc/7/task/9/mem', 3n, { kind: 'process-access', operation: 'mem-write', target: { pid: 7 } }],
  ['/proc/42/mem', 3n, { kind: 'process-access', operation: 'mem-write', target: { pid: 42 } }],
  ['/proc/sys/kernel/core_pattern', 2n, { kind: 'sysctl', path: '/proc/sys/kernel/core_pattern' }],
])('%s opened with mode %s is told', (path, mode, told) => {
  expect(decode(activity({ operation: 5, values: [mode], first: path })).records).toMatchObject([told])
})

test.each([
  ['/proc/42/mem', 1n],
  ['/proc/self/oom_score_adj', 2n],
  ['/proc/sys/kernel/core_pattern', 1n],
])('%s opened with mode %s is not', (path, mode) => {
  const { records, whole } = decode(activity({ operation: 5, values: [mode], first: path }))
  expect(records).toEqual([])
  expect(whole).toBe(true)
})

test.each([
  ['/srv', 'file\0', '/srv/file'],
  ['/srv', './file\0', '/srv/file'],
  ['/', 'file\0', '/file'],
  ['/srv', '/etc/passwd\0', '/etc/passwd'],
  ['/srv/open', '\0', '/srv/open'],
])('a path below %s that the caller wrote as %j is %s', (first, second, path) => {
  const made = activity({ operation: 18, values: [90n, 0o104755n], first, second, isCallersPath: true })
  expect(decode(made).records).toMatchObject([
    { kind: 'file-attributes', operation: 'mode', path, mode: 0o4755 },
  ])
})

test('users that stay as they are, are told as such', () => {
  const owner = activity({ operation: 18, values: [93n, 5n, 0xffff_ffffn], first: '/srv/f' })
  const set = activity({ operation: 17, values: [117n, 0xffff_ffffn, 1_000n, 0n, 1_000n, 2n ** 40n] })
  expect(decode(Buffer.concat([owner, set])).records).toMatchObject([
    { operation: 'owner', userId: 5, groupId: null },
    {
      operation: 'setresuid',
      requested: [-1, 1_000, 0],
      effectiveUserId: 1_000,
      effectiveCapabilities: 2n ** 40n,
    },
  ])
})

test('a mount is told by its three texts, and texts that do not fit are left out', () => {
  const second = 'tmpfs\0/mnt/x\0tmpfs\0'
  const made = activity({ operation: 16, values: [1n, 6n, 13n], second, result: -1n })
  const wrong = activity({ operation: 16, values: [1n, 60n, 13n], second })
  expect(decode(Buffer.concat([made, wrong])).records).toMatchObject([
    { kind: 'mount', operation: 'mount', source: 'tmpfs', target: '/mnt/x', type: 'tmpfs', result: -1 },
  ])
})

const logon = (functionCode: bigint, result: bigint, user: string, service: string) => {
  const texts = Buffer.alloc(256)
  texts.write(user, 0)
  texts.write(service, 64)
  texts.write('192.0.2.7', 128)
  texts.write('ssh', 192)
  return activity({ operation: 21, values: [functionCode, result], second: texts })
}

test.each([
  [2n, 0n, 'sshd', 'logon'],
  [3n, 0n, 'sshd', 'logoff'],
  [1n, 7n, 'sshd', 'logon-failed'],
  [2n, 0n, 'sudo', 'privilege-elevated'],
])('function %s of PAM with result %s for %s is a %s', (functionCode, result, service, action) => {
  expect(decode(logon(functionCode, result, 'alice', service)).records).toMatchObject([
    { kind: 'logon', action, account: 'alice', service, remote: '192.0.2.7', terminal: 'ssh', source: 'pam' },
  ])
})

test.each([
  [1n, 0n, 'sshd'],
  [1n, 31n, 'sshd'],
  [2n, 6n, 'sshd'],
  [2n, 0n, 'cron'],
  [2n, 0n, 'systemd-user'],
])('function %s of PAM with result %s for %s is nobody’s logon', (functionCode, result, service) => {
  expect(decode(logon(functionCode, result, 'alice', service)).records).toEqual([])
})

test('a record whose texts reach past its end, or of no known operation, is not whole', () => {
  const long = activity({ operation: 8, first: '/lib/x' })
  long.writeUInt16LE(60_000, 42)
  expect(decode(long).whole).toBe(false)
  expect(decode(activity({ operation: 31 })).whole).toBe(false)
})

test('no bytes make the decoder throw', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 32 }),
      fc.uint8Array({ minLength: 104, maxLength: 600 }),
      fc.constantFrom(6, 7, 8, 9, 10, 11, 1),
      (operation, bytes, kind) => {
        const buffer = Buffer.from(bytes)
        buffer.writeUInt32LE(buffer.length, 0)
        buffer[4] = kind
        if (kind === 11) {
          buffer.writeUInt16LE(operation, 40)
          buffer.writeUInt16LE(Math.floor((buffer.length - 104) / 2), 42)
          buffer.writeUInt16LE(Math.floor((buffer.length - 104) / 2), 44)
        }
        decode(buffer)
      },
    ),
    { numRuns: 3_000 },
  )
})
