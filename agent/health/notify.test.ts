import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, expect, test, vi } from 'vitest'
import { compileReceiveDatagrams, loadBuiltAddon } from '../native/testing/compile.ts'
import { notifySender } from '../platform/linux/systemd.ts'
import { createServiceNotifier } from './notify.ts'

const folder = mkdtempSync(join(tmpdir(), 'cordon-notify-'))
const receiver = compileReceiveDatagrams(folder)
const send = notifySender(loadBuiltAddon())
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A manager's socket and what came in on it. */
async function listen(socketPath: string) {
  const child = spawn(receiver, [socketPath], { stdio: ['ignore', 'pipe', 'inherit'] })
  const lines: string[] = []
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line))
  await vi.waitFor(() => expect(lines).toEqual(['bound']), 10_000)
  return {
    lines,
    async [Symbol.asyncDispose]() {
      if (child.kill('SIGKILL')) await once(child, 'exit')
    },
  }
}

test.each([
  ['a path', join(folder, 'notify.sock')],
  ['an abstract name', `@cordon-notify-${process.pid}`],
])('systemd hears of readiness, life and the end over %s', async (_kind, socketPath) => {
  await using manager = await listen(socketPath)
  const stop = new AbortController()
  const warnings: string[] = []
  const notifier = createServiceNotifier({
    environment: { NOTIFY_SOCKET: socketPath, WATCHDOG_USEC: '1000000', WATCHDOG_PID: '77' },
    pid: 77,
    send,
    signal: stop.signal,
    warn: (reason) => warnings.push(reason),
  })
  notifier.ready('sensors in force: exec,\nfile')
  await vi.waitFor(
    () => expect(manager.lines.filter((line) => line === 'WATCHDOG=1').length).toBeGreaterThan(1),
    10_000,
  )
  stop.abort()
  await vi.waitFor(() => expect(manager.lines.at(-1)).toBe('STOPPING=1'), 10_000)
  expect(manager.lines[1]).toBe('READY=1|STATUS=sensors in force: exec, file')
  expect(warnings).toEqual([])
})

test('a watchdog that is meant for another process gets no signs of life from this one', () => {
  const sent: string[] = []
  createServiceNotifier({
    environment: { NOTIFY_SOCKET: '/run/n', WATCHDOG_USEC: '1000000', WATCHDOG_PID: '78' },
    pid: 77,
    send: (_path, message) => sent.push(message),
    signal: new AbortController().signal,
    warn: () => undefined,
  }).ready('here')
  expect(sent).toEqual(['READY=1\nSTATUS=here'])
})

test.each([undefined, '', '/', 'vsock:2:1', 'relative'])('with NOTIFY_SOCKET=%s nobody is told', (socket) => {
  const sent: string[] = []
  const stop = new AbortController()
  const notifier = createServiceNotifier({
    environment: { NOTIFY_SOCKET: socket, WATCHDOG_USEC: '1000000' },
    pid: 1,
    send: (_path, message) => sent.push(message),
    signal: stop.signal,
    warn: () => undefined,
  })
  notifier.ready('here')
  stop.abort()
  expect(sent).toEqual([])
})

test('a manager that is gone is a warning and no end of the agent', () => {
  const warnings: string[] = []
  createServiceNotifier({
    environment: { NOTIFY_SOCKET: join(folder, 'nobody') },
    pid: 1,
    send,
    signal: new AbortController().signal,
    warn: (reason) => warnings.push(reason),
  }).ready('here')
  expect(warnings).toEqual([expect.stringMatching(/^the service manager was not told READY=1: .*ENOENT/)])
})

test.each(['', 'a\0b', '/'.padEnd(200, 'x')])('the addon refuses the socket path %j', (path) => {
  expect(() => send(path, 'READY=1')).toThrow(TypeError)
})
