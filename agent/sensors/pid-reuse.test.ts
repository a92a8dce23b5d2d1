import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { CordonEvent } from '../../shared/events/event.ts'
import { type WatchedMount, watchMount } from './testing/watched-mount.ts'

const asRoot = process.geteuid?.() === 0

/**
 * A shell that writes a file, and after its end another program with the same pid, as clone3(2) gives it to whoever
 * asks for it (set_tid), that writes another. Prints the pid.
 */
const reuse = `
import ctypes, os, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def write(program, path): os.execv(program, [program, '-c', 'echo x > "$0"', path])
first = os.fork()
if first == 0: write('/bin/sh', sys.argv[1])
os.waitpid(first, 0)
time.sleep(0.3)
asked = ctypes.create_string_buffer(struct.pack('i', first))
arguments = ctypes.create_string_buffer(struct.pack('11Q', 0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(asked), 1, 0))
second = libc.syscall(435, arguments, 88)
if second == 0: write('/bin/bash', sys.argv[2])
if second != first: sys.exit(3)
os.waitpid(second, 0)
print(first)
`

describe.skipIf(!asRoot)('a pid that the kernel gives out again', () => {
  if (!asRoot) return
  let watched: WatchedMount

  beforeAll(async () => {
    watched = await watchMount()
  })
  afterAll(async () => {
    await watched?.[Symbol.asyncDispose]()
  })

  test('is two processes, and what each did is told of the one that did it', async () => {
    const at = (name: string) => join(watched.path, name)
    const child = spawn('/usr/bin/python3', ['-c', reuse, at('first'), at('second')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let output = ''
    child.stdout.on('data', (chunk) => {
      output += chunk
    })
    await once(child, 'close')
    const pid = Number(output)
    expect(pid).toBeGreaterThan(0)
    const of = (action: CordonEvent['event.action']) =>
      watched.events.filter(
        (event) => event['event.action'] === action && 'process.pid' in event && event['process.pid'] === pid,
      )
    await expect.poll(() => of('exit').length, { timeout: 10_000 }).toBe(2)
    await expect.poll(() => of('file-created').length, { timeout: 10_000 }).toBe(2)
    const entities = (action: CordonEvent['event.action']) =>
      of(action).map((event) => ('process.entity_id' in event ? event['process.entity_id'] : ''))
    const [first, second, ...others] = entities('exec')
    expect(others).toEqual([])
    expect(first).not.toBe(second)
    expect(of('exec')).toMatchObject([{ 'process.args_count': 4 }, { 'process.executable': '/usr/bin/bash' }])
    expect(entities('exit')).toEqual([first, second])
    const written = of('file-created').map((event) => [
      'file.path' in event && event['file.path'],
      'process.entity_id' in event && event['process.entity_id'],
    ])
    expect(written).toEqual([
      [at('first'), first],
      [at('second'), second],
    ])
  })
})
