/**
 * What is known of sockets by process and descriptor: audit tells of a connect or a listen only the number of the
 * descriptor. Sockets are learnt from their making; those made before, and those handed over, are looked up in
 * /proc (proc(5), /proc/PID/net/tcp).
 */
import { closeSync, openSync, readlinkSync, readSync } from 'node:fs'
import { addressText } from '../address-text.ts'

export interface Endpoint {
  readonly address: string
  readonly port: number
}

export type Transport = 'tcp' | 'udp' | 'other'

export interface KnownSocket {
  readonly transport: Transport
  readonly local: Endpoint | null
  readonly remote: Endpoint | null
}

export interface SocketTable {
  made(pid: number, fd: number, transport: Transport): void
  bound(pid: number, fd: number, local: Endpoint): void
  /** Also one that the process has from its parents, to a few generations. */
  find(pid: number, fd: number): KnownSocket | null
  /** As /proc tells it now; null when the process is gone, or after too many looks in a second. */
  look(pid: number, fd: number): KnownSocket | null
}

const socketsMax = 16_384
const generationsMax = 4
/** A look takes milliseconds on a host with many connections. */
const looksPerSecondMax = 64
const tableBytesMax = 1024 ** 2
const families = { inet: 2, inet6: 10 } as const

export function createSocketTable(
  parentOf: (pid: number) => number,
  nowMs: () => number,
  lookUp: (pid: number, fd: number) => KnownSocket | null = lookUpSocket,
): SocketTable {
  const sockets = new Map<string, KnownSocket>()
  const keyOf = (pid: number, fd: number) => `${pid} ${fd}`

  function put(key: string, socket: KnownSocket): KnownSocket {
    sockets.delete(key)
    sockets.set(key, socket)
    if (sockets.size > socketsMax) {
      const oldest = sockets.keys().next()
      if (!oldest.done) sockets.delete(oldest.value)
    }
    return socket
  }

  let second = 0
  let looks = 0
  function look(pid: number, fd: number): KnownSocket | null {
    const now = Math.floor(nowMs() / 1_000)
    if (now !== second) looks = 0
    second = now
    looks += 1
    const found = looks > looksPerSecondMax ? null : lookUp(pid, fd)
    return found === null ? null : put(keyOf(pid, fd), found)
  }

  function known(pid: number, fd: number): KnownSocket | undefined {
    let at = pid
    for (let generation = 0; generation < generationsMax && at > 0; generation++) {
      const socket = sockets.get(keyOf(at, fd))
      if (socket) return socket
      at = parentOf(at)
    }
    return undefined
  }

  return {
    made(pid, fd, transport) {
      put(keyOf(pid, fd), { transport, local: null, remote: null })
    },
    bound(pid, fd, local) {
      const transport = (known(pid, fd) ?? look(pid, fd))?.transport
      if (transport !== undefined) put(keyOf(pid, fd), { transport, local, remote: null })
    },
    find: (pid, fd) => known(pid, fd) ?? look(pid, fd),
    look,
  }
}

/** Address and port of a struct sockaddr_in or sockaddr_in6; null for another one or a cut one. */
export function parseSocketAddress(bytes: Buffer): (Endpoint & { readonly family: number }) | null {
  if (bytes.length < 2) return null
  const family = bytes.readUInt16LE(0)
  if (family === families.inet && bytes.length >= 8) {
    return { family, port: bytes.readUInt16BE(2), address: addressText(family, bytes.subarray(4, 8)) }
  }
  if (family === families.inet6 && bytes.length >= 24) {
    return { family, port: bytes.readUInt16BE(2), address: addressText(family, bytes.subarray(8, 24)) }
  }
  return null
}

const tables = [
  { file: 'tcp', transport: 'tcp' },
  { file: 'tcp6', transport: 'tcp' },
  { file: 'udp', transport: 'udp' },
  { file: 'udp6', transport: 'udp' },
] as const

/** Null when the process is gone, or the socket is of another family. */
function lookUpSocket(pid: number, fd: number): KnownSocket | null {
  try {
    const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1]
    if (inode === undefined) return null
    for (const { file, transport } of tables) {
      const line = findLine(readBounded(`/proc/${pid}/net/${file}`), inode)
      if (line) return { transport, ...line }
    }
  } catch {
    // It is gone.
  }
  return null
}

function readBounded(path: string): string {
  const descriptor = openSync(path, 'r')
  try {
    const buffer = Buffer.allocUnsafe(tableBytesMax)
    let length = 0
    for (;;) {
      const bytes = readSync(descriptor, buffer, length, buffer.length - length, null)
      length += bytes
      if (bytes === 0 || length === buffer.length) return buffer.toString('latin1', 0, length)
    }
  } finally {
    closeSync(descriptor)
  }
}

/** `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode`; addresses are words of the host's order. */
function findLine(text: string, inode: string): { local: Endpoint; remote: Endpoint } | null {
  for (const line of text.split('\n')) {
    const columns = line.trim().split(/\s+/, 10)
    if (columns[9] === inode) return { local: endpointOf(columns[1]), remote: endpointOf(columns[2]) }
  }
  return null
}

function endpointOf(column = ''): Endpoint {
  const [address = '', port = '0'] = column.split(':')
  const bytes = Buffer.from(address, 'hex')
  if (bytes.length === 4 || bytes.length === 16) bytes.swap32()
  else return { address: '', port: 0 }
  const family = bytes.length === 4 ? families.inet : families.inet6
  return { address: addressText(family, bytes), port: Number.parseInt(port, 16) || 0 }
}
