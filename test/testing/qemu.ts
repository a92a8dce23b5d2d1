/**
 * A guest in qemu with another kernel than the machine's. It lives in memory and needs no drivers but those of two
 * serial lines: the first is its console, over the second its first process takes commands (guest-init.c). A network
 * is there when it is asked for (guest-network.ts). Without /dev/kvm every instruction is translated: it is many
 * times slower than the machine.
 */
import { type ChildProcessWithoutNullStreams, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ensureSystemPrograms, GUESTS } from '../../scripts/setup/system-packages.ts'
import { ensureGuestKernel, type GuestKernel } from './guest-kernel.ts'
import { guestNetwork } from './guest-network.ts'
import { type InitramfsEntry, writeInitramfs } from './initramfs.ts'
import { createSerialLine, type SerialLine } from './serial-line.ts'

export interface RanInGuest {
  readonly stdout: string
  readonly stderr: string
  /** As shells tell it: 128 and the signal's number when one ended it, 127 when it is not there. */
  readonly status: number
}

export interface GuestOptions {
  /** Absolute names in the guest, and the files of this machine that they are copies of; libraries come with them. */
  readonly files: Readonly<Record<string, string>>
  /** Absolute names in the guest, and what is in them. */
  readonly texts?: Readonly<Record<string, string>>
  readonly memoryMegabytes?: number
  /** Ports of this machine's loopback, which the guest reaches at `HOST_ADDRESS` and nothing else; none: no network. */
  readonly hostPorts?: readonly number[]
}

export interface Guest extends AsyncDisposable {
  readonly kernel: GuestKernel
  /** From the start of qemu until the guest takes commands. */
  readonly bootMs: number
  /** Runs one program to its end, after those asked for before. There is no shell but what `files` bring. */
  run(command: readonly string[]): Promise<RanInGuest>
  /** The same; throws with what it said unless it ended with 0. */
  must(command: readonly string[]): Promise<string>
  /** What the kernel warned of so far, and what the first process could not do. */
  console(): string
}

const BOOT_MS = 120_000
/** The line is slow: see `run`. */
const COMMAND_MS = 100_000
const REQUEST_BYTES_MAX = 65_536
/** Who is who, and a home. */
const ACCOUNTS = {
  '/root/.profile': '',
  '/etc/passwd': 'root:x:0:0:root:/root:/bin/sh\n',
  '/etc/group': 'root:x:0:\n',
}
const MACHINE = [
  ...['-machine', 'pc,accel=kvm:tcg', '-cpu', 'max', '-smp', '2'],
  ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
]

/** Boots a guest. Throws with the reason, and what its console said, when it does not come up. */
export async function bootGuest(options: GuestOptions): Promise<Guest> {
  const say = (line: string) => console.error(`cordon: ${line}`)
  const system = ensureSystemPrograms(GUESTS, say)
  if (system.kind === 'missing') throw new Error(system.mend)
  const kernel = ensureGuestKernel(say)
  await using undo = new AsyncDisposableStack()
  const work = mkdtempSync(join(tmpdir(), 'cordon-guest-'))
  undo.defer(() => rmSync(work, { recursive: true, force: true }))
  const initramfs = join(work, 'initramfs')
  const network = guestNetwork(kernel, options.hostPorts ?? [])
  const files = { ...options.files, ...network.files }
  writeInitramfs(initramfs, entriesOf({ ...options, files }, compileInit(work)))
  const consolePath = join(work, 'console')
  const readConsole = () => (existsSync(consolePath) ? readFileSync(consolePath, 'utf8') : '')

  const startedMs = performance.now()
  const machine = spawn('qemu-system-x86_64', [
    ...MACHINE,
    ...['-m', String(options.memoryMegabytes ?? 2_048)],
    ...network.words,
    ...['-serial', `file:${consolePath}`, '-serial', 'stdio'],
    ...[
      '-kernel',
      kernel.imagePath,
      '-initrd',
      initramfs,
      '-append',
      'console=ttyS0 quiet panic=-1 rdinit=/init',
    ],
  ])
  undo.defer(() => endMachine(machine))
  let said = ''
  machine.stderr.on('data', (chunk) => {
    said = (said + chunk).slice(-4_000)
  })
  machine.stdin.on('error', () => undefined)
  const line = createSerialLine(
    machine.stdout,
    () => `qemu said: ${said}; its console: ${readConsole().slice(-4_000)}`,
  )
  const ready = await line.takeLine(BOOT_MS)
  if (ready !== 'READY') throw new Error(`the guest said ${ready} where it was to say that it is ready`)
  const bootMs = performance.now() - startedMs

  let last: Promise<unknown> = Promise.resolve()
  const run = async (command: readonly string[]) => {
    const words = wordsOf(command)
    // After an answer that never came whole, the next one cannot be told from it: every command fails then.
    const ran = last.then(() => runIn(machine, line, words))
    ran.catch(() => undefined)
    last = ran
    return ran
  }
  const kept = undo.move()
  return {
    kernel,
    bootMs,
    run,
    async must(command) {
      const { status, stdout, stderr } = await run(command)
      if (status !== 0) throw new Error(`${command.join(' ')} ended with ${status}:\n${stdout}${stderr}`)
      return stdout
    },
    console: readConsole,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

async function endMachine(machine: ChildProcessWithoutNullStreams): Promise<void> {
  if (machine.exitCode !== null || machine.signalCode !== null) return
  const gone = once(machine, 'exit')
  // Nothing in it outlives its memory.
  machine.kill('SIGKILL')
  await gone
}

function wordsOf(command: readonly string[]): Buffer {
  const words = Buffer.from(command.map((word) => `${word}\0`).join(''))
  if (words.length === 0 || words.length > REQUEST_BYTES_MAX)
    throw new Error(`a command for a guest has 1 to ${REQUEST_BYTES_MAX} bytes, not ${words.length}`)
  return words
}

async function runIn(
  machine: ChildProcessWithoutNullStreams,
  line: SerialLine,
  words: Buffer,
): Promise<RanInGuest> {
  machine.stdin.write(Buffer.concat([Buffer.from(`RUN ${words.length}\n`), words]))
  const answer = await line.takeLine(COMMAND_MS)
  const [, status, outputBytes, errorBytes] = /^DONE (\d+) (\d+) (\d+)$/.exec(answer) ?? []
  if (status === undefined) throw new Error(`the guest answered ${JSON.stringify(answer)}`)
  const stdout = await line.takeBytes(Number(outputBytes), COMMAND_MS)
  const stderr = await line.takeBytes(Number(errorBytes), COMMAND_MS)
  return { status: Number(status), stdout: stdout.toString(), stderr: stderr.toString() }
}

/** What the guest starts with: its first process, what it was given, and the libraries that this needs. */
function entriesOf(options: GuestOptions, initPath: string): ReadonlyMap<string, InitramfsEntry> {
  const entries = new Map<string, InitramfsEntry>([
    ['/init', { kind: 'copy', from: initPath, mode: 0o755 }],
    ['/dev/console', { kind: 'character-device', major: 5, minor: 1 }],
  ])
  for (const [name, content] of Object.entries({ ...ACCOUNTS, ...options.texts }))
    entries.set(name, { kind: 'file', content, mode: 0o644 })
  for (const [name, from] of Object.entries(options.files)) {
    entries.set(name, { kind: 'copy', from, mode: statSync(from).mode & 0o777 })
    for (const library of librariesOf(from))
      entries.set(library, { kind: 'copy', from: library, mode: 0o755 })
  }
  return entries
}

/** As the machine's own loader finds them (ldd(1)); none for what needs no loader. */
function librariesOf(path: string): readonly string[] {
  const { stdout } = spawnSync('ldd', [path], { encoding: 'utf8' })
  return (stdout ?? '').split('\n').flatMap((line) => /(?:=> |^\s+)(\/\S+) \(0x/.exec(line)?.[1] ?? [])
}

function compileInit(folder: string): string {
  const output = join(folder, 'init')
  execFileSync('gcc', ['-O2', '-static', '-o', output, join(import.meta.dirname, 'guest-init.c')])
  return output
}
