/** What the scanner child cannot do any more once it is ready, tried from inside of one. */
import { spawn } from 'node:child_process'
import { chmodSync, closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createFrameDecoder, encodeFrame } from './scan-protocol.ts'
import { nativeAddon } from './testing/running-scanner.ts'

const isRoot = process.getuid?.() === 0
let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-sandbox-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Runs the worker with an engine that tries the given code as its second scan (the first is before the sandbox). */
async function tryInside(code: string): Promise<string> {
  if (!nativeAddon.ok) throw new Error(nativeAddon.reason)
  const { native } = nativeAddon
  const entry = join(folder, `entry-${Math.random()}.ts`)
  const here = import.meta.dirname
  writeFileSync(
    entry,
    `import * as fs from 'node:fs'
     import * as net from 'node:net'
     import * as child from 'node:child_process'
     import { loadNative } from '${here}/../native/addon.ts'
     import { runScanWorker } from '${here}/scan-worker.ts'
     let scans = 0
     const attempt = () => { ${code} }
     const scanner = {
       addRuleSources() {}, getIgnoredRules: () => [], getCompilationErrors: () => [], setTimeout() {},
       setMaxMatchesPerPattern() {},
       scan() {
         scans += 1
         if (scans === 1) return []
         let told
         try { told = String(attempt() ?? 'done') } catch (error) { told = error.code ?? error.message }
         return [{ ruleIdentifier: told, namespace: 'x', meta: { id: told }, tags: [], matches: [] }]
       },
     }
     const loaded = loadNative()
     process.exitCode = runScanWorker({ yara: { compile: () => scanner, validate: () => ({ errors: [] }) }, native: loaded.native })`,
  )
  const [own, other] = native.socketPair()
  const worker = spawn(process.execPath, [entry], { stdio: ['pipe', 'pipe', 'inherit', other], env: {} })
  closeSync(other)
  worker.stdin?.write(
    encodeFrame({
      sources: [],
      transport: 'socket',
      parentPid: process.pid,
      scanBytesMax: 1_000,
      hashBytesMax: 1_000,
      scanTimeoutMs: 1_000,
      dataBytesMax: 1024 ** 3,
    }),
  )
  const decoder = createFrameDecoder(1_000_000)
  try {
    for await (const chunk of worker.stdout ?? []) {
      for (const text of decoder.push(chunk as Buffer)) {
        const reply = JSON.parse(text) as { kind: string; hits?: { ruleId: string }[] }
        if (reply.kind === 'ready') {
          const fd = openSync('/proc/self/exe', 'r')
          native.sendDescriptor(own, fd, Buffer.from('{"id":1,"fd":0}'))
          closeSync(fd)
        } else {
          return reply.hits?.[0]?.ruleId ?? text
        }
      }
    }
    return 'ended'
  } finally {
    closeSync(own)
    worker.kill('SIGKILL')
  }
}

test.skipIf(!nativeAddon.ok && !isRoot)('inside of it no program can be started', async () => {
  expect(await tryInside(`return child.execFileSync('/bin/true').length`)).toMatch(/EPERM|EACCES/)
})

test.skipIf(!nativeAddon.ok && !isRoot)('inside of it nothing can be connected', async () => {
  const server = createServer().listen(0, '127.0.0.1')
  try {
    await new Promise((resolve) => server.once('listening', resolve))
    const { port } = server.address() as { port: number }
    // A socket that cannot be made throws here; one that could be made would be "done".
    const told = await tryInside(`
      const { TCP, constants } = process.binding('tcp_wrap')
      const socket = new TCP(constants.SOCKET)
      const failed = socket.bind('127.0.0.1', 0)
      return failed === 0 ? 'done' : 'refused ' + failed + ' ' + ${port}`)
    expect(told).toMatch(/^refused -/)
  } finally {
    server.close()
  }
})

test.skipIf(!nativeAddon.ok && !isRoot)('inside of it nothing can be written', async () => {
  const path = join(folder, 'written')
  expect(await tryInside(`fs.writeFileSync('${path}', 'x')`)).toMatch(/EPERM|EACCES|EFBIG/)
})

test
  .skipIf(!nativeAddon.ok && !isRoot)
  .each([
    `return fs.readFileSync('/etc/hosts').length`,
    `return fs.openSync('/')`,
    `return fs.openSync('/proc/self/fd/3')`,
    `return fs.readFileSync('/proc/self/maps').length`,
    `return fs.readdirSync('/').length`,
  ])('inside of it no file can be opened, not even one for everyone: %s', async (attempt) => {
  expect(await tryInside(attempt)).toBe('EPERM')
})

test
  .skipIf(!nativeAddon.ok && !isRoot)
  .each([
    (path: string) => `fs.unlinkSync('${path}')`,
    (path: string) => `fs.renameSync('${path}', '${path}-moved')`,
    (path: string) => `fs.chmodSync('${path}', 0o777)`,
    (path: string) => `fs.truncateSync('${path}')`,
    (path: string) => `fs.mkdirSync('${path}-made')`,
    (path: string) => `fs.symlinkSync('${path}', '${path}-link')`,
    (path: string) => `fs.utimesSync('${path}', 1, 1)`,
  ])('inside of it nothing is changed by its path, whoever owns it: %s', async (attempt) => {
  const path = join(folder, 'owned-by-whoever-runs-this')
  writeFileSync(path, 'stays')
  chmodSync(folder, 0o777)
  chmodSync(path, 0o666)
  expect(await tryInside(attempt(path))).toBe('EPERM')
  expect(readFileSync(path, 'utf8')).toBe('stays')
})

test.skipIf(!isRoot)('inside of it root cannot be taken back, nor another process signalled', async () => {
  expect(await tryInside(`process.setuid(0)`)).toMatch(/EPERM/)
  expect(await tryInside(`process.kill(${process.pid}, 0)`)).toMatch(/EPERM/)
})
