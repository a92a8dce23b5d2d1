import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type CordonEvent, EVENT_SCHEMAS, type EventAction, type EventOf } from '../../shared/events/event.ts'
import { EVENT_BYTES_MAX } from '../../shared/protocol/limits.ts'
import { compileSchema } from '../../shared/protocol/parse.ts'
import { compileTinyExit } from '../native/testing/compile.ts'
import { type WatchedMount, watchMount } from './testing/watched-mount.ts'

const asRoot = process.geteuid?.() === 0
/** A newline, what clears a terminal and sets its title, what turns text around, and bytes that are no UTF-8. */
const hostile = Buffer.concat([
  Buffer.from('a\nb\r\x1b[2J\x1b]0;owned\x07\u202e\u2028"\\ '),
  Buffer.from([0xff, 0xfe, 0xc0, 0xaf, 0xed, 0xa0, 0x80]),
])
const readable = hostile.toString('utf8')
const exact = (bytes: Buffer) => bytes.toString('base64')
/** As Python writes bytes. */
const inPython = `b'${[...hostile].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}'`

describe.skipIf(!asRoot)('from the kernel to an event that the schema takes:', () => {
  if (!asRoot) return
  const work = mkdtempSync(join(tmpdir(), 'cordon-hostile-'))
  let watched: WatchedMount
  let tinyExit = ''

  beforeAll(async () => {
    tinyExit = compileTinyExit(work)
    watched = await watchMount()
  })
  afterAll(async () => {
    await watched?.[Symbol.asyncDispose]()
    rmSync(work, { recursive: true, force: true })
  })

  /** Runs Python to its end. The text reaches it as bytes, through no shell. */
  async function run(...lines: string[]): Promise<ChildProcess> {
    const child = spawn('/usr/bin/python3', ['-c', ['import ctypes,os', ...lines].join('\n')], {
      stdio: 'ignore',
    })
    await once(child, 'exit')
    return child
  }

  async function python(...lines: string[]): Promise<number> {
    const child = await run(...lines)
    expect(child.exitCode).toBe(0)
    return child.pid ?? 0
  }

  /** The event that `matches`, proved to be one that the schema takes and a batch carries. */
  async function told<Action extends EventAction>(
    action: Action,
    matches: (event: EventOf<Action>) => boolean,
  ): Promise<EventOf<Action>> {
    const find = () =>
      watched.events.find((event) => event['event.action'] === action && matches(event as EventOf<Action>))
    await expect.poll(() => find() !== undefined, { timeout: 10_000 }).toBe(true)
    const event = find() as EventOf<Action>
    const body = JSON.stringify(event)
    expect([...compileSchema(EVENT_SCHEMAS[action]).Errors(JSON.parse(body))]).toEqual([])
    expect(Buffer.byteLength(body)).toBeLessThanOrEqual(EVENT_BYTES_MAX)
    // One line, whatever stood in it: control characters are written out.
    expect([...body].every((character) => character >= ' ')).toBe(true)
    return event
  }

  test('arguments, the name of the program, the folder it runs in and its own name for itself', async () => {
    const folder = Buffer.concat([Buffer.from(`${watched.path}/in`), hostile])
    const program = Buffer.concat([Buffer.from(`${work}/run`), hostile])
    renameSync(compileTinyExit(work, 'plain'), program)
    const named = `libc=ctypes.CDLL(None); libc.prctl(15, ${inPython})`
    const [go, start] = [`os.mkdir(${bytes(folder)}); os.chdir(${bytes(folder)})`, `${bytes(program)}`]
    const pid = await python(named, go, `os.execv(${start}, [${inPython}, b'--exit=0'])`)
    const event = await told(
      'exec',
      (one) => one['process.pid'] === pid && one['process.executable']?.startsWith(work) === true,
    )
    expect(event['process.executable']).toBe(program.toString('utf8'))
    expect(event['process.command_line']).toBe(`${readable} --exit=0`)
    expect(event['cordon.bytes']).toMatchObject({
      'process.executable': exact(program),
      'process.command_line': exact(Buffer.concat([hostile, Buffer.from(' --exit=0')])),
      'process.working_directory': exact(folder),
    })
  })

  test('a command line of 2 MB that is no text', async () => {
    const piece = `${inPython}*${Math.floor(100_000 / hostile.length)}`
    const pid = await python(`os.execv('${tinyExit}', [b'huge'] + [${piece}]*20 + [b'0'])`)
    const event = await told(
      'exec',
      (one) => one['process.pid'] === pid && one['process.executable'] === tinyExit,
    )
    expect(event['cordon.truncated']).toContain('process.command_line')
    expect(event['process.command_line']?.startsWith(`huge ${readable}${readable}`)).toBe(true)
    expect(await told('exit', (one) => one['process.pid'] === pid)).toMatchObject({ 'process.exit_code': 0 })
  })

  test('files that are made, renamed, linked and deleted', async () => {
    const at = (prefix: string) => Buffer.concat([Buffer.from(`${watched.path}/${prefix}`), hostile])
    const [one, other, link] = ['one', 'other', 'link'].map(at) as [Buffer, Buffer, Buffer]
    const pid = await python(
      `open(${bytes(one)}, 'w').close(); os.rename(${bytes(one)}, ${bytes(other)})`,
      `os.symlink(${inPython}, ${bytes(link)}); os.remove(${bytes(other)})`,
    )
    const mine = (path: Buffer) => (event: CordonEvent) =>
      'file.path' in event && event['file.path'] === path.toString('utf8') && event['process.pid'] === pid
    for (const [action, path] of [
      ['file-created', one],
      ['file-renamed', other],
      ['file-deleted', other],
    ] as const) {
      expect((await told(action, mine(path)))['cordon.bytes']).toMatchObject({ 'file.path': exact(path) })
    }
    const linked = await told('file-linked', mine(link))
    expect(linked).toMatchObject({
      'cordon.bytes': { 'file.path': exact(link) },
      'file.target_path': readable,
    })
  })

  test('scripts: a text of 100 kB after an option, a file, and what comes through a pipe', async () => {
    const isOf = (pid: number | undefined) => (event: { 'process.pid'?: number }) =>
      event['process.pid'] === pid
    await run(`os.execv('/bin/sh', [b'sh', b'-c', b': ' + (${inPython}.replace(b'"', b'') + b'x')*2500])`)
    const long = await told('script', (one) => one['cordon.script.content']?.startsWith(': a\nb') === true)
    expect(long['cordon.truncated']).toContain('cordon.script.content')

    const path = Buffer.concat([Buffer.from(`${work}/script`), hostile])
    writeFileSync(path, Buffer.concat([Buffer.from(': <<"END"\n'), hostile, Buffer.from('\nEND\n')]))
    const pid = await python(`os.execv('/bin/sh', [b'sh', ${bytes(path)}])`)
    const read = await told(
      'script',
      (one) => one['process.pid'] === pid && one['cordon.script.origin'] === 'file',
    )
    expect(read).toMatchObject({
      'file.path': path.toString('utf8'),
      'cordon.bytes': { 'file.path': exact(path) },
    })
    expect(read['cordon.script.content']).toContain(readable)

    const shell = spawn('/bin/sh', { stdio: ['pipe', 'ignore', 'ignore'] })
    shell.stdin.end(Buffer.concat([Buffer.from(': <<"PIPED"\n'), hostile, Buffer.from('\nPIPED\n')]))
    await once(shell, 'exit')
    const piped = await told('script', isOf(shell.pid))
    expect(piped).toMatchObject({ 'cordon.script.origin': 'input' })
    expect(piped['cordon.script.content']).toContain(readable)
  })

  test('names of memory files, modules, mounts and attributes', async () => {
    const file = `${watched.path}/attributed`
    const pid = await python(
      'libc=ctypes.CDLL(None)',
      `libc.memfd_create(${inPython}, 0)`,
      `libc.syscall(176, ${inPython}, 0)`,
      `libc.mount(${inPython}, b'/nowhere'+${inPython}, ${inPython}, 0, None)`,
      `open('${file}','w').close(); libc.setxattr(b'${file}', b'user.'+${inPython}, b'v', 1, 0)`,
    )
    const mine = (event: { 'process.pid'?: number }) => event['process.pid'] === pid
    const memory = await told('memory-file-created', mine)
    const module = await told('module-unloaded', mine)
    const mount = await told('mount-changed', mine)
    const attributes = await told('file-attributes-changed', mine)
    expect(memory['file.name']).toBe(`memfd:${readable}`)
    expect(module['cordon.module.name']).toBe(readable)
    expect(mount).toMatchObject({ 'cordon.mount.source': readable, 'file.path': `/nowhere${readable}` })
    expect(attributes['cordon.file.attribute']).toBe(`user.${readable}`)
  })
})

function bytes(text: Buffer): string {
  return `b'${[...text].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}'`
}
