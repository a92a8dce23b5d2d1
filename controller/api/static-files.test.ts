import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { consoleFiles } from './static-files.ts'
import { type MemoryController, startMemoryController } from './testing/memory-controller.ts'
import { rawRequest } from './testing/raw-request.ts'

const INDEX = '<!doctype html><title>Cordon – ünïcode</title>'
const SCRIPT = 'console.log("é")\n'.repeat(100)

let folder: string
let controller: MemoryController
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-static-'))
  mkdirSync(join(folder, 'assets'))
  writeFileSync(join(folder, 'index.html'), INDEX)
  writeFileSync(join(folder, 'assets', 'main-ABC.js'), SCRIPT)
  writeFileSync(join(folder, 'assets', 'notes.txt'), 'not for serving')
  writeFileSync(join(folder, 'secret.js'), 'outside')
  controller = await startMemoryController({ console: consoleFiles(folder) })
})
afterAll(async () => {
  await controller[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
})

const get = (path: string) => fetch(`${controller.url}${path}`, { signal: AbortSignal.timeout(20_000) })

test('a folder without a build is no console', () => {
  expect(consoleFiles(join(folder, 'nothing'))).toBeNull()
})

test.each(['/', '/sign-in', '/hosts', '/hosts/abc', '/incidents', '/incidents/INC-1?at=1'])(
  'the client route %s is answered with the index under the strict policy',
  async (path) => {
    const answer = await get(path)
    expect(answer.status).toBe(200)
    expect(await answer.text()).toBe(INDEX)
    expect(answer.headers.get('content-type')).toBe('text/html; charset=utf-8')
    expect(answer.headers.get('cache-control')).toBe('no-cache')
    const policy = answer.headers.get('content-security-policy') ?? ''
    expect(policy).toContain("default-src 'none'; script-src 'self'; style-src 'self'")
    expect(policy).not.toContain('unsafe')
  },
)

test('a hashed file may be kept for ever, and comes compressed to who takes that', async () => {
  const path = '/assets/main-ABC.js'
  const zipped = await rawRequest(controller.port, {
    method: 'GET',
    path,
    headers: { host: `127.0.0.1:${controller.port}`, 'accept-encoding': 'br, gzip' },
  })
  expect(zipped.headers).toMatchObject({
    'content-type': 'text/javascript; charset=utf-8',
    'cache-control': 'public, max-age=31536000, immutable',
    'content-encoding': 'gzip',
    vary: 'accept-encoding',
    'x-content-type-options': 'nosniff',
  })
  const plain = await fetch(`${controller.url}${path}`, { headers: { 'accept-encoding': 'identity' } })
  expect(plain.headers.get('content-encoding')).toBeNull()
  expect(await plain.text()).toBe(SCRIPT)
})

test('a text file of the build is compressed whole', () => {
  const file = consoleFiles(folder)?.assets.get('main-ABC.js')
  expect(gunzipSync(file?.gzipped ?? Buffer.alloc(0)).toString('utf8')).toBe(SCRIPT)
})

test.each([
  '/assets/notes.txt',
  '/assets/..%2Fsecret.js',
  '/assets/%2e%2e%2fsecret.js',
  '/assets/',
  '/assets/constructor',
  '/secret.js',
  '/elsewhere',
])('%s is not there', async (path) => {
  const answer = await get(path)
  expect(answer.status).toBe(404)
  expect(answer.headers.get('cache-control')).toBe('no-store')
})
