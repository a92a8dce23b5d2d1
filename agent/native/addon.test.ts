import { execFile, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, expect, test } from 'vitest'
import { loadNative } from './addon.ts'
import { loadBuiltAddon } from './testing/compile.ts'

const asRoot = process.getuid?.() === 0
const native = loadBuiltAddon()
const folder = mkdtempSync(join(tmpdir(), 'cordon-native-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function withPair(use: (left: number, right: number) => void): void {
  const [left, right] = native.socketPair()
  try {
    use(left, right)
  } finally {
    closeSync(left)
    closeSync(right)
  }
}

const isClosedOnExec = (fd: number) => {
  const flags = readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1').match(/^flags:\s*([0-7]+)$/m)?.[1] ?? '0'
  return (Number.parseInt(flags, 8) & 0o2000000) !== 0
}

test('a descriptor travels with its payload and is closed on exec at the other end', () => {
  const path = join(folder, 'sent')
  writeFileSync(path, 'content')
  withPair((left, right) => {
    const sent = openSync(path, 'r')
    native.sendDescriptor(left, sent, Buffer.from('scan this'))
    closeSync(sent)
    const buffer = Buffer.alloc(64)
    const received = native.receiveDescriptor(right, buffer, 1_000)
    expect(buffer.toString('latin1', 0, received?.length)).toBe('scan this')
    const fd = received?.fd ?? -1
    expect(fstatSync(fd).ino).toBe(statSync(path).ino)
    expect(isClosedOnExec(fd)).toBe(true)
    expect(readFileSync(fd, 'utf8')).toBe('content')
    closeSync(fd)
  })
})

test('a message without a descriptor, a silence and the end are told apart', () => {
  const [left, right] = native.socketPair()
  const buffer = Buffer.alloc(8)
  expect(native.receiveDescriptor(right, buffer, 0)).toBeNull()
  native.sendDescriptor(left, -1, Buffer.from('plain'))
  expect(native.receiveDescriptor(right, buffer, 0)).toEqual({ fd: -1, length: 5 })
  closeSync(left)
  expect(native.receiveDescriptor(right, buffer, 0)).toEqual({ fd: -1, length: 0 })
  closeSync(right)
})

test('a message that does not fit is refused and its descriptor is closed', () => {
  withPair((left, right) => {
    const path = join(folder, 'long')
    writeFileSync(path, '')
    const sent = openSync(path, 'r')
    native.sendDescriptor(left, sent, Buffer.alloc(100))
    closeSync(sent)
    // The number that the next descriptor gets is free again only if the received one was closed.
    const next = openSync(path, 'r')
    closeSync(next)
    expect(() => native.receiveDescriptor(right, Buffer.alloc(10), 0)).toThrow('EMSGSIZE')
    const after = openSync(path, 'r')
    closeSync(after)
    expect(after).toBe(next)
  })
})

test('a receiver that does not read makes the sender fail at once instead of waiting', () => {
  withPair((left) => {
    const sendMany = () => {
      for (let count = 0; count < 10_000; count++) native.sendDescriptor(left, -1, Buffer.alloc(1_024))
    }
    expect(sendMany).toThrow('EAGAIN')
  })
})

test('system errors carry code, errno and the call, and wrong arguments are type errors', () => {
  const failure = (() => {
    try {
      native.pidfdOpen(2 ** 22 + 1)
    } catch (error) {
      return error
    }
    return undefined
  })()
  expect(failure).toMatchObject({ code: 'ESRCH', errno: 3, syscall: 'pidfd_open' })
  expect(() => native.pidfdOpen(0)).toThrow(TypeError)
  expect(() => native.pidfdOpen(1.5)).toThrow(TypeError)
  expect(() => native.pidfdOpen(Number.NaN)).toThrow(TypeError)
  expect(() => native.pidfdOpen('1' as never)).toThrow(TypeError)
  expect(() => (native.pidfdSendSignal as (fd: number) => void)(1)).toThrow('too few arguments')
  expect(() => native.sendDescriptor(0, 0, Buffer.alloc(0))).toThrow('empty')
  expect(() => native.receiveDescriptor(-1, Buffer.alloc(1), 0)).toThrow(TypeError)
  expect(() => native.enterSandbox({ userId: 0, groupId: 1, openFilesMax: 1 })).toThrow(TypeError)
  expect(() => native.enterSandbox(null as never)).toThrow(TypeError)
  const wrong = { userId: 1, groupId: 1, openFilesMax: 1, refusePaths: 'yes' } as never
  expect(() => native.enterSandbox(wrong)).toThrow(TypeError)
  expect(() => native.fanotifyDrain({} as never, Buffer.alloc(65_536))).toThrow('handle')
})

test('a process is signalled and waited for by its descriptor, which never means another', async () => {
  const child = spawn('/bin/sleep', ['60'], { stdio: 'ignore' })
  const ended = once(child, 'exit')
  const fd = native.pidfdOpen(child.pid ?? 0)
  expect(native.pidfdWaitExited(fd, 0)).toBe(false)
  native.pidfdSendSignal(fd, 0)
  native.pidfdSendSignal(fd, 9)
  expect(native.pidfdWaitExited(fd, 5_000)).toBe(true)
  expect(await ended).toEqual([null, 'SIGKILL'])
  expect(() => native.pidfdSendSignal(fd, 9)).toThrow('ESRCH')
  closeSync(fd)
  expect(() => native.pidfdWaitExited(fd, 0)).toThrow('EBADF')
})

test.skipIf(!asRoot)('a handle of one kind is not taken for the other, nor one that was closed', () => {
  const group = native.fanotifyOpen()
  expect(() => native.bpfDrain(group as never, Buffer.alloc(65_536))).toThrow('handle')
  native.fanotifyClose(group)
  native.fanotifyClose(group)
  expect(() => native.fanotifyDrain(group, Buffer.alloc(65_536))).toThrow('EBADF')
})

/** RTM_GETLINK for all links (rtnetlink(7)): the kernel answers anybody. */
function askForLinks(): Buffer {
  const message = Buffer.alloc(32)
  message.writeUInt32LE(32, 0)
  message.writeUInt16LE(18, 4)
  message.writeUInt16LE(0x301, 6)
  return message
}

function lengthsOf(buffer: Buffer, bytes: number): number[] {
  const lengths: number[] = []
  for (let offset = 0; offset < bytes; ) {
    const length = buffer.readUInt32LE(offset)
    lengths.push(length)
    offset += 4 + ((length + 3) & ~3)
  }
  return lengths
}

test('a netlink socket fetches what the kernel answers, and nothing when there is nothing', () => {
  const handle = native.netlinkOpen(0, 0, 65_536)
  const buffer = Buffer.alloc(65_536)
  expect(native.netlinkDrain(handle, buffer)).toBe(0)
  native.netlinkSend(handle, askForLinks())
  const bytes = native.netlinkDrain(handle, buffer)
  const lengths = lengthsOf(buffer, bytes)
  expect(lengths.length).toBeGreaterThan(0)
  expect(lengths.every((length) => length >= 16)).toBe(true)
  expect(bytes % 4).toBe(0)
  // RTM_NEWLINK, and its own length in the header.
  expect(buffer.readUInt16LE(8)).toBe(16)
  expect(buffer.readUInt32LE(4)).toBeLessThanOrEqual(lengths[0] ?? 0)
  native.netlinkClose(handle)
  native.netlinkClose(handle)
  expect(() => native.netlinkDrain(handle, buffer)).toThrow('EBADF')
})

test('what another program sends to a netlink socket is not taken for the kernel', () => {
  // NETLINK_USERSOCK lets programs send to each other: its group 1 reaches this socket.
  const handle = native.netlinkOpen(2, 1, 65_536)
  const buffer = Buffer.alloc(65_536)
  // The sender is refused only after the group has got its message, which a listener of its own proves.
  const script = [
    'import socket,struct',
    'listener=socket.socket(16,3,2)',
    'listener.bind((0,1))',
    'sender=socket.socket(16,3,2)',
    'sender.bind((0,0))',
    "try: sender.sendto(struct.pack('IHHII',16,1,0,0,0),(0,1))",
    'except ConnectionRefusedError: pass',
    'print(len(listener.recv(100)))',
  ].join('\n')
  const told = spawnSync('/usr/bin/python3', ['-c', script], { encoding: 'utf8', timeout: 10_000 })
  expect(told.stdout).toBe('16\n')
  expect(native.netlinkDrain(handle, buffer)).toBe(0)
  native.netlinkClose(handle)
})

test('messages that are not fetched in time are told as dropped', () => {
  const handle = native.netlinkOpen(0, 0, 4_096)
  const buffer = Buffer.alloc(65_536)
  const sendMany = () => {
    for (let count = 0; count < 200; count++) {
      // Each is refused with an error message, which fills the queue.
      native.netlinkSend(handle, Buffer.from([16, 0, 0, 0, 255, 255, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
    }
  }
  sendMany()
  const lengths: number[] = []
  for (let bytes = 1; bytes > 0; ) {
    bytes = native.netlinkDrain(handle, buffer)
    lengths.push(...lengthsOf(buffer, bytes))
  }
  expect(lengths).toContain(0)
  expect(lengths.length).toBeLessThan(200)
  native.netlinkClose(handle)
})

test('netlink arguments that do not fit are type errors, and refused sockets are system errors', () => {
  expect(() => native.netlinkOpen(-1, 0, 0)).toThrow(TypeError)
  expect(() => native.netlinkOpen(0, 2 ** 33, 0)).toThrow(TypeError)
  expect(() => native.netlinkOpen(99, 0, 0)).toThrow('EPROTONOSUPPORT')
  const handle = native.netlinkOpen(0, 0, 4_096)
  expect(() => native.netlinkSend(handle, Buffer.alloc(3))).toThrow(TypeError)
  expect(() => native.netlinkDrain(handle, Buffer.alloc(100))).toThrow('32768')
  expect(() => native.netlinkDrain({} as never, Buffer.alloc(65_536))).toThrow('handle')
  native.netlinkClose(handle)
})

test.skipIf(!asRoot)(
  'in the sandbox no thread connects, starts programs, writes files or is root again',
  async () => {
    const server = createServer((socket) => socket.destroy())
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    const script = join(import.meta.dirname, 'testing/sandbox-child.ts')
    const { stdout } = await promisify(execFile)(process.execPath, [script, String(port)], {
      timeout: 30_000,
    })
    server.close()
    const nobody = '65534\t65534\t65534\t65534'
    expect(JSON.parse(stdout)).toEqual({
      entered: { userDropped: true, networkNamespaceOfThread: true, systemCallFilter: true },
      fromMain: { connect: 'EPERM', spawn: 'EPERM' },
      fromWorker: { connect: 'EPERM', spawn: 'EPERM' },
      setuid: 'EPERM',
      kill: 'EPERM',
      readShadow: 'EACCES',
      readHosts: 'done',
      write: 'EFBIG',
      users: [nobody],
      capabilities: ['0000000000000000'],
      noNewPrivileges: ['1'],
      filters: ['2'],
    })
    rmSync('/dev/shm/cordon-sandbox-test', { force: true })
  },
)

test('an addon that is missing, or is no addon, is a reason that says what to do', () => {
  const path = join(folder, 'cordon.node')
  expect(loadNative(path)).toMatchObject({ ok: false, reason: expect.stringContaining('build-native.ts') })
  writeFileSync(path, 'not a library')
  expect(loadNative(path)).toMatchObject({ ok: false, reason: expect.stringContaining('cannot be loaded') })
})
