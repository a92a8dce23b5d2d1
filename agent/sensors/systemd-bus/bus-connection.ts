/** A connection to a message bus: it logs on as this process's user (AUTH EXTERNAL), calls and is called. */
import { connect, type Socket } from 'node:net'
import {
  createMessageStream,
  encodeMessage,
  MESSAGE_TYPES,
  type Message,
  type OutgoingMessage,
} from './message.ts'
import type { Value } from './wire-format.ts'

export interface Call {
  readonly destination: string
  readonly path: string
  readonly interface: string
  readonly member: string
  readonly signature?: string
  readonly body?: readonly Value[]
}

export type Reply =
  | { readonly ok: true; readonly body: readonly Value[] }
  /** `name` is that of the error, such as org.freedesktop.DBus.Error.AccessDenied. */
  | { readonly ok: false; readonly name: string; readonly reason: string }

export interface BusConnection {
  readonly uniqueName: string
  /** Never rejects. */
  call(call: Call): Promise<Reply>
  send(message: Omit<OutgoingMessage, 'serial'>): number
  /** Resolves with the reason when the connection ends. */
  readonly ended: Promise<string>
  close(): void
}

export interface ConnectOptions {
  readonly socketPath: string
  /** Everything that is no reply to a call of this connection. */
  readonly message: (message: Message) => void
  /** A message was passed over: it was too long, or did not hold together. */
  readonly refused?: (reason: string) => void
  readonly timeoutMs?: number
}

const TIMEOUT_MS = 5_000
const KEPT_BYTES_MAX = 1024 * 1024
const CALLS_MAX = 1_024
const LINE_BYTES_MAX = 4_096
/** What a bus that does not read may keep waiting here. */
const UNSENT_BYTES_MAX = 4 * 1024 * 1024
export const BUS = { destination: 'org.freedesktop.DBus', path: '/org/freedesktop/DBus' } as const

/** Rejects when there is no bus, or it refuses. */
export async function connectToBus(options: ConnectOptions): Promise<BusConnection> {
  const { timeoutMs = TIMEOUT_MS } = options
  const socket = await openSocket(options.socketPath, timeoutMs)
  const calls = new Map<number, (reply: Reply) => void>()
  const ended = Promise.withResolvers<string>()
  let serial = 0

  let endReason = 'the connection is closed'
  const end = (reason: string) => {
    if (!socket.destroyed) endReason = reason
    socket.destroy()
    ended.resolve(reason)
    for (const answer of calls.values()) answer({ ok: false, name: 'disconnected', reason })
    calls.clear()
  }
  const stream = createMessageStream({
    keptBytesMax: KEPT_BYTES_MAX,
    message(message) {
      const answer = calls.get(message.replySerial ?? 0)
      const isReply = message.type === MESSAGE_TYPES.reply || message.type === MESSAGE_TYPES.error
      if (!isReply || answer === undefined) {
        options.message(message)
        return
      }
      calls.delete(message.replySerial ?? 0)
      answer(replyOf(message))
    },
    refused: options.refused ?? (() => undefined),
  })
  const send = (message: Omit<OutgoingMessage, 'serial'>): number => {
    serial += 1
    if (socket.writableLength > UNSENT_BYTES_MAX) end('the bus does not read')
    else if (!socket.destroyed) socket.write(encodeMessage({ ...message, serial }))
    return serial
  }
  const call = (wanted: Call): Promise<Reply> => {
    const unsent = socket.destroyed ? endReason : calls.size >= CALLS_MAX ? 'too many calls wait' : null
    if (unsent !== null) return Promise.resolve({ ok: false, name: 'unsent', reason: unsent })
    const sent = send({ type: MESSAGE_TYPES.call, ...wanted })
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        calls.delete(sent)
        resolve({ ok: false, name: 'timeout', reason: `no reply within ${timeoutMs} ms` })
      }, timeoutMs)
      calls.set(sent, (reply) => {
        clearTimeout(timer)
        resolve(reply)
      })
    })
  }

  socket.on('error', (error) => end(error.message))
  socket.on('close', () => end('the bus closed the connection'))
  try {
    const early = await logOn(socket, timeoutMs)
    const take = (chunk: Buffer) => {
      try {
        stream.push(chunk)
      } catch (error) {
        end(error instanceof Error ? error.message : String(error))
      }
    }
    socket.on('data', take)
    take(early)
    const hello = await call({ ...BUS, interface: 'org.freedesktop.DBus', member: 'Hello' })
    if (!hello.ok) throw new Error(`the bus refuses Hello: ${hello.reason}`)
    return {
      uniqueName: String(hello.body[0] ?? ''),
      call,
      send,
      ended: ended.promise,
      close: () => end('closed'),
    }
  } catch (error) {
    end('refused')
    throw error
  }
}

function replyOf(message: Message): Reply {
  try {
    const body = message.body()
    if (message.type === MESSAGE_TYPES.reply) return { ok: true, body }
    return { ok: false, name: message.errorName ?? '', reason: String(body[0] ?? message.errorName) }
  } catch (error) {
    return { ok: false, name: 'malformed', reason: error instanceof Error ? error.message : String(error) }
  }
}

function openSocket(path: string, timeoutMs: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path })
    const timer = setTimeout(() => socket.destroy(new Error(`no bus within ${timeoutMs} ms`)), timeoutMs)
    socket.once('connect', () => {
      clearTimeout(timer)
      socket.removeListener('error', reject)
      resolve(socket)
    })
    socket.once('error', (error) => {
      clearTimeout(timer)
      reject(error)
    })
  })
}

/** "Authentication Protocol": gives what came after the server's last line. */
function logOn(socket: Socket, timeoutMs: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let received = Buffer.alloc(0)
    const done = (error: Error | null) => {
      clearTimeout(timer)
      socket.removeAllListeners('data')
      socket.removeListener('close', closed)
      if (error !== null) reject(error)
    }
    const closed = () => done(new Error('the bus closed the connection before the logon'))
    const timer = setTimeout(() => done(new Error(`no logon within ${timeoutMs} ms`)), timeoutMs)
    socket.once('close', closed)
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk])
      const lineEnd = received.indexOf('\r\n')
      if (lineEnd === -1 && received.length < LINE_BYTES_MAX) return
      const line = received.toString('latin1', 0, Math.max(0, Math.min(lineEnd, 128)))
      if (!line.startsWith('OK ')) {
        done(new Error(`the bus refuses the logon: ${line}`))
        return
      }
      done(null)
      socket.write('BEGIN\r\n')
      resolve(received.subarray(lineEnd + 2))
    })
    const user = Buffer.from(String(process.geteuid?.() ?? 0)).toString('hex')
    socket.write(`\0AUTH EXTERNAL ${user}\r\n`)
  })
}
