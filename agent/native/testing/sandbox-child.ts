/**
 * Runs as a process of its own: enters the sandbox, tries what it must not be able to do, on the main thread and
 * on one that was there before, and prints what came of it as JSON.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { isMainThread, parentPort, Worker } from 'node:worker_threads'
import { loadNative } from '../addon.ts'

interface Attempts {
  readonly connect: string
  readonly spawn: string
}

/** The code of the error that the attempt ended with, or `done`. */
function outcomeOf(attempt: () => void): string {
  try {
    attempt()
    return 'done'
  } catch (error) {
    return codeOf(error)
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error)
}

async function tryFromThisThread(): Promise<Attempts> {
  const socket = connect(Number(process.argv[2]), '127.0.0.1')
  const connected = await once(socket, 'connect').then(() => 'done', codeOf)
  let spawned = 'done'
  try {
    const child = spawn('/bin/true')
    spawned = await once(child, 'exit').then(() => 'done', codeOf)
  } catch (error) {
    spawned = codeOf(error)
  }
  return { connect: connected, spawn: spawned }
}

/** The different values of a field of /proc/TID/status over all threads. */
function statusOfThreads(field: string): string[] {
  const values = new Set<string>()
  for (const task of readdirSync('/proc/self/task')) {
    try {
      const status = readFileSync(`/proc/self/task/${task}/status`, 'latin1')
      values.add(status.match(new RegExp(`^${field}:\\s*(.*)$`, 'm'))?.[1] ?? 'missing')
    } catch (error) {
      // A thread that ended since it was listed.
      if (!['ENOENT', 'ESRCH'].includes(codeOf(error))) throw error
    }
  }
  return [...values]
}

async function runMain(): Promise<void> {
  const loaded = loadNative()
  if (!loaded.ok) throw new Error(loaded.reason)
  const worker = new Worker(new URL(import.meta.url), { argv: process.argv.slice(2) })
  await once(worker, 'message')

  const entered = loaded.native.enterSandbox({
    userId: 65_534,
    groupId: 65_534,
    openFilesMax: 64,
    cpuSeconds: 30,
  })
  worker.postMessage('try')
  const [fromWorker] = await once(worker, 'message')
  const report = {
    entered,
    fromMain: await tryFromThisThread(),
    fromWorker,
    setuid: outcomeOf(() => process.setuid?.(0)),
    kill: outcomeOf(() => process.kill(process.ppid, 0)),
    readShadow: outcomeOf(() => readFileSync('/etc/shadow')),
    readHosts: outcomeOf(() => readFileSync('/etc/hosts')),
    write: outcomeOf(() => writeFileSync('/dev/shm/cordon-sandbox-test', 'x')),
    users: statusOfThreads('Uid'),
    capabilities: statusOfThreads('CapEff'),
    noNewPrivileges: statusOfThreads('NoNewPrivs'),
    filters: statusOfThreads('Seccomp'),
  }
  process.stdout.write(JSON.stringify(report))
  await worker.terminate()
}

if (isMainThread) {
  await runMain()
} else {
  parentPort?.once('message', async () => parentPort?.postMessage(await tryFromThisThread()))
  parentPort?.postMessage('ready')
}
