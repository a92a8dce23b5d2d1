/** The system's own programs that isolation needs: nft(8) and ss(8), run without a shell and in bounded time. */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'

export type ProgramResult =
  | { readonly kind: 'ended'; readonly code: number; readonly output: string; readonly errors: string }
  | { readonly kind: 'missing' }
  | { readonly kind: 'failed'; readonly reason: string }

/** Runs one program with `input` as its standard input. Never rejects. */
export type RunProgram = (program: string, args: readonly string[], input: string) => Promise<ProgramResult>

/** Where distributions put them; the agent's own PATH may be anybody's. */
const PATH = '/usr/sbin:/usr/bin:/sbin:/bin'
const TIMEOUT_MS = 20_000
/** A host with a thousand devices has a ruleset of 100 KB. */
const OUTPUT_BYTES_MAX = 4 * 1024 ** 2

/** `within`: a program that runs the others somewhere else, such as `ip netns exec NAME`. */
export function createProgramRunner(within: readonly string[] = []): RunProgram {
  return (program, args, input) => {
    const [command = program, ...rest] = [...within, program, ...args]
    return run(command, rest, input)
  }
}

function run(command: string, args: readonly string[], input: string): Promise<ProgramResult> {
  return new Promise((resolve) => {
    const child = spawn(command, [...args], {
      cwd: '/',
      env: { PATH, LANG: 'C.UTF-8' },
      stdio: ['pipe', 'pipe', 'pipe'],
      shell: false,
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
    })
    const output: Buffer[] = []
    const errors: Buffer[] = []
    let bytes = 0
    const take = (into: Buffer[]) => (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes > OUTPUT_BYTES_MAX) child.kill('SIGKILL')
      else into.push(chunk)
    }
    child.stdout.on('data', take(output))
    child.stderr.on('data', take(errors))
    // A program that ends before it has read all says why in its output.
    child.stdin.on('error', () => undefined)
    child.once('error', (error: NodeJS.ErrnoException) =>
      resolve(error.code === 'ENOENT' ? { kind: 'missing' } : { kind: 'failed', reason: error.message }),
    )
    child.once('close', (code, signal) => {
      if (code === null) {
        const why = bytes > OUTPUT_BYTES_MAX ? 'it said too much' : `it did not end within ${TIMEOUT_MS} ms`
        resolve({ kind: 'failed', reason: `${command} was ended (${signal}): ${why}` })
        return
      }
      const text = (chunks: Buffer[]) => Buffer.concat(chunks).toString('utf8')
      resolve({ kind: 'ended', code, output: text(output), errors: text(errors) })
    })
    child.stdin.end(input)
  })
}

/** Names of the network devices in this process's own namespace (proc(5), net/dev); sysfs may show another's. */
export function listNetworkDevices(text = readFileSync('/proc/self/net/dev', 'latin1')): readonly string[] {
  return text
    .split('\n')
    .slice(2)
    .map((line) => line.slice(0, Math.max(0, line.lastIndexOf(':'))).trim())
    .filter((name) => name !== '')
}

/** True when this namespace has VLAN devices of its own (8021q). */
export function hasVlanDevices(): boolean {
  try {
    return readFileSync('/proc/self/net/vlan/config', 'latin1').trimEnd().split('\n').length > 2
  } catch {
    return false
  }
}
