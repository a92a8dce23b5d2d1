/**
 * A unix socket in a folder: only who may open the folder may ask. One line is asked and one is answered per
 * connection.
 */
import { closeSync, openSync, rmSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { aborted } from '../../../shared/node/loop.ts'

const QUESTION_BYTES_MAX = 4 * 1024
const ANSWER_BYTES_MAX = 256 * 1024
const TIMEOUT_MS = 5_000
const CONNECTIONS_MAX = 16

/** Serves until `signal` aborts. `answer` gets the line without its end, and must not reject. */
export async function serveFolderSocket(
  folderPath: string,
  name: string,
  answer: (question: string) => string | Promise<string>,
  signal: AbortSignal,
): Promise<void> {
  const server = createServer(async (socket) => {
    socket.on('error', () => socket.destroy())
    const question = await readLine(socket, QUESTION_BYTES_MAX)
    if (question.kind === 'line') socket.end(`${await answer(question.line)}\n`)
    else socket.destroy()
  })
  server.maxConnections = CONNECTIONS_MAX
  const folder = openSync(folderPath, 'r')
  try {
    // A socket's path holds 108 bytes (unix(7)); through the open folder any depth is short.
    const path = `/proc/self/fd/${folder}/${name}`
    rmSync(path, { force: true })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(path, resolve)
    })
    await aborted(signal)
    server.close()
    rmSync(join(folderPath, name), { force: true })
  } finally {
    closeSync(folder)
  }
}

export type FolderAnswer =
  | { readonly kind: 'answer'; readonly line: string }
  /** Nobody serves there. */
  | { readonly kind: 'nobody' }
  | { readonly kind: 'failed'; readonly cause: Error }

/** Asks whoever serves the socket in that folder. `timeoutMs`: how long an answer may take. */
export async function askFolderSocket(
  folderPath: string,
  name: string,
  question: string,
  timeoutMs = TIMEOUT_MS,
): Promise<FolderAnswer> {
  let folder: number
  try {
    folder = openSync(folderPath, 'r')
  } catch (cause) {
    return failureOf(cause as Error)
  }
  try {
    const socket = connect(`/proc/self/fd/${folder}/${name}`)
    socket.write(`${question}\n`)
    const answered = await readLine(socket, ANSWER_BYTES_MAX, timeoutMs)
    socket.destroy()
    return answered.kind === 'line' ? { kind: 'answer', line: answered.line } : failureOf(answered.cause)
  } finally {
    closeSync(folder)
  }
}

function failureOf(cause: Error): FolderAnswer {
  const { code } = cause as NodeJS.ErrnoException
  return code === 'ENOENT' || code === 'ECONNREFUSED' ? { kind: 'nobody' } : { kind: 'failed', cause }
}

type Line =
  | { readonly kind: 'line'; readonly line: string }
  | { readonly kind: 'failed'; readonly cause: Error }

function readLine(socket: Socket, bytesMax: number, timeoutMs = TIMEOUT_MS): Promise<Line> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = []
    let bytes = 0
    const fail = (cause: Error) => {
      socket.destroy()
      resolve({ kind: 'failed', cause })
    }
    socket.setTimeout(timeoutMs, () => fail(new Error('the other end does not answer')))
    socket.on('data', (chunk) => {
      bytes += chunk.length
      if (bytes > bytesMax) return fail(new Error('the other end says too much'))
      chunks.push(chunk)
      if (!chunk.includes(0x0a)) return
      const text = Buffer.concat(chunks).toString('utf8')
      resolve({ kind: 'line', line: text.slice(0, text.indexOf('\n')) })
    })
    socket.on('error', fail)
    socket.on('end', () => fail(new Error('the other end said nothing')))
    socket.on('close', () => fail(new Error('the other end said nothing')))
  })
}
