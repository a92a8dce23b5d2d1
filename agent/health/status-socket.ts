/**
 * The running agent's word on itself, over a unix socket in its state folder: only who may read the folder may
 * ask. One answer per connection, as one line of JSON.
 */
import { closeSync, openSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { aborted } from '../../shared/node/loop.ts'

const SOCKET_NAME = 'agent.sock'
const ANSWER_BYTES_MAX = 256 * 1024
const ANSWER_TIMEOUT_MS = 5_000

/** Serves `report()` until `signal` aborts. */
export async function serveStatus(
  stateFolder: string,
  report: () => unknown,
  signal: AbortSignal,
): Promise<void> {
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy())
    socket.end(`${JSON.stringify(report())}\n`)
  })
  const folder = openSync(stateFolder, 'r')
  try {
    // A socket's path holds 108 bytes (unix(7)); through the open folder any depth is short.
    const path = `/proc/self/fd/${folder}/${SOCKET_NAME}`
    rmSync(path, { force: true })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(path, resolve)
    })
    await aborted(signal)
    server.close()
    rmSync(join(stateFolder, SOCKET_NAME), { force: true })
  } finally {
    closeSync(folder)
  }
}

export type StatusAnswer =
  | { readonly kind: 'answer'; readonly report: unknown }
  | { readonly kind: 'notRunning' }
  | { readonly kind: 'failed'; readonly cause: Error }

/** Asks the agent whose state folder this is. */
export async function askStatus(stateFolder: string): Promise<StatusAnswer> {
  let folder: number
  try {
    folder = openSync(stateFolder, 'r')
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === 'ENOENT'
      ? { kind: 'notRunning' }
      : { kind: 'failed', cause: cause as Error }
  }
  try {
    const text = await readAnswer(`/proc/self/fd/${folder}/${SOCKET_NAME}`)
    return { kind: 'answer', report: JSON.parse(text) }
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code
    if (code === 'ENOENT' || code === 'ECONNREFUSED') return { kind: 'notRunning' }
    return { kind: 'failed', cause: cause as Error }
  } finally {
    closeSync(folder)
  }
}

function readAnswer(path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(path)
    const chunks: Buffer[] = []
    let bytes = 0
    socket.setTimeout(ANSWER_TIMEOUT_MS, () => socket.destroy(new Error('the agent does not answer')))
    socket.on('data', (chunk) => {
      bytes += chunk.length
      if (bytes > ANSWER_BYTES_MAX) socket.destroy(new Error('the answer is too long'))
      else chunks.push(chunk)
    })
    socket.on('error', reject)
    socket.on('end', () => resolve(Buffer.concat(chunks).toString('utf8')))
  })
}
