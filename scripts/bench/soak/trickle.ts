/** What a host does on a quiet day: a few programs, files and connections a second, always under new names. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, unlinkSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer } from 'node:net'
import { join } from 'node:path'
import { compileTinyExit } from '../../../agent/native/testing/compile.ts'
import { runEvery } from '../../../shared/node/loop.ts'

const INTERVAL_MS = 1_000
/** Of each, in one interval. */
const EACH = 3

export interface Done {
  readonly programs: number
  readonly files: number
  readonly connections: number
}

/** Goes on until `signal` aborts, and says what it did. */
export async function trickle(folder: string, signal: AbortSignal): Promise<Done> {
  const files = join(folder, 'trickle')
  mkdirSync(files)
  const executable = compileTinyExit(folder, 'trickle-program')
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  let rounds = 0
  try {
    await runEvery(INTERVAL_MS, signal, async () => {
      for (let index = 0; index < EACH; index += 1) {
        const name = `${rounds}-${index}`
        await runOnce(executable, name)
        const path = join(files, name)
        writeFileSync(path, `written in round ${name}\n`)
        unlinkSync(path)
        await connectOnce(port)
      }
      rounds += 1
    })
  } finally {
    server.close()
  }
  const each = rounds * EACH
  return { programs: each, files: each, connections: each }
}

function runOnce(executable: string, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(executable, [`--name=${name}`, '--exit=0'], { stdio: 'ignore' })
    child.once('error', reject)
    child.once('exit', () => resolve())
  })
}

function connectOnce(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.end('once'))
    socket.once('error', reject)
    socket.once('close', () => resolve())
    socket.resume()
  })
}
