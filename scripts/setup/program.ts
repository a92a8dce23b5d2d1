/** Programs of a deployment: started with their log in a file, awaited by a line, stopped in bounded time. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { PROGRAMS } from './programs.ts'

export const ROOT = join(import.meta.dirname, '..', '..')
/** Where `npm run package` puts its programs. With CORDON_TEST_PROGRAMS=dist they run instead of the source. */
export const DIST = join(ROOT, 'dist')

/** A signal that opened an inspector would let its sender run what he likes in the program. */
const NODE_FLAGS = ['--disable-warning=ExperimentalWarning', '--disable-sigusr1']

/** What to start for one of the entries in `PROGRAMS`, or for any other script. */
function commandOf(
  script: string,
  nodeArgs: readonly string[],
  within: readonly string[] = [],
): readonly [string, ...string[]] {
  const packed = Object.entries(PROGRAMS).find(([, entry]) => entry === script)?.[0]
  const isPacked = packed !== undefined && process.env['CORDON_TEST_PROGRAMS'] === 'dist'
  const program = isPacked
    ? [join(DIST, packed)]
    : [process.execPath, ...NODE_FLAGS, ...nodeArgs, join(ROOT, script)]
  const [command = '', ...before] = [...within, ...program]
  return [command, ...before]
}

export interface Program {
  readonly name: string
  readonly pid: number
  readonly logPath: string
  /** Resolves with the exit code (null: a signal) once the process is gone. */
  readonly exited: Promise<number | null>
  running(): boolean
  /** SIGTERM, and SIGKILL when it is still there after `graceMs`. Resolves when it is gone. */
  stop(graceMs?: number): Promise<void>
  kill(signal: NodeJS.Signals): void
}

export interface StartOptions {
  readonly name: string
  readonly script: string
  readonly args: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  /** File that takes what it writes to standard error. */
  readonly logPath: string
  /** First line of standard output that begins so ends the wait. */
  readonly readyPrefix: string
  readonly readyTimeoutMs: number
  /** Arguments of Node itself. The program ends by itself when its standard input closes: no orphans. */
  readonly nodeArgs?: readonly string[]
  /** A program that runs it somewhere else and becomes it, such as `ip netns exec NAME`. */
  readonly within?: readonly string[]
}

/** Starts a program and waits until it is ready. Rejects with its last words when it is not. */
export async function startProgram(options: StartOptions): Promise<{ program: Program; readyLine: string }> {
  const log = openSync(options.logPath, 'a', 0o600)
  const [command, ...before] = commandOf(options.script, options.nodeArgs ?? [], options.within)
  const child = spawn(command, [...before, ...options.args], {
    stdio: ['pipe', 'pipe', log],
    env: { ...process.env, ...options.environment },
    detached: true,
  })
  closeSync(log)
  const program = wrap(options.name, options.logPath, child)
  if (child.stdout === null) throw new Error('the program was started with a pipe as its standard output')
  const lines = createInterface({ input: child.stdout })
  const ready = new Promise<string>((resolve) => {
    lines.on('line', (line) => {
      if (line.startsWith(options.readyPrefix)) resolve(line.slice(options.readyPrefix.length).trim())
    })
  })
  const timeout = new AbortController()
  const late = new Promise<null>((resolve) => {
    const timer = setTimeout(() => resolve(null), options.readyTimeoutMs)
    timeout.signal.addEventListener('abort', () => clearTimeout(timer))
  })
  const outcome = await Promise.race([ready, late, program.exited.then((code) => ({ code }))])
  timeout.abort()
  if (typeof outcome === 'string') return { program, readyLine: outcome }
  await program.stop(0)
  const what =
    outcome === null
      ? `was not ready after ${options.readyTimeoutMs / 1_000} s`
      : `ended with ${outcome.code}`
  throw new Error(
    `${options.name} ${what}; its log is ${options.logPath}, the last lines are:\n${lastLines(options.logPath)}`,
  )
}

function wrap(name: string, logPath: string, child: ChildProcess): Program {
  const exited = new Promise<number | null>((resolve) => {
    child.once('exit', (code) => resolve(code))
    child.once('error', () => resolve(null))
  })
  const running = () => child.exitCode === null && child.signalCode === null
  const kill = (signal: NodeJS.Signals) => {
    if (running()) child.kill(signal)
  }
  return {
    name,
    logPath,
    pid: child.pid ?? 0,
    exited,
    running,
    kill,
    async stop(graceMs = 4_000) {
      if (!running()) return
      kill('SIGTERM')
      const timer = setTimeout(() => kill('SIGKILL'), graceMs)
      await exited
      clearTimeout(timer)
    },
  }
}

function lastLines(path: string): string {
  return readFileSync(path, 'utf8').trimEnd().split('\n').slice(-12).join('\n')
}

export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs one of the programs to its end. */
export function runProgram(
  script: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
  input = '',
  within?: readonly string[],
): Promise<Ran> {
  const [command, ...before] = commandOf(script, [], within)
  return runFile(command, [...before, ...args], environment, { input })
}

/** Runs a file to its end, in this folder unless said. */
export function runFile(
  command: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
  { folder, input = '' }: { readonly folder?: string; readonly input?: string } = {},
): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      ...(folder === undefined ? {} : { cwd: folder }),
      env: { ...process.env, ...environment },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (chunk) => {
      stdout += chunk
    })
    child.stderr.on('data', (chunk) => {
      stderr += chunk
    })
    child.once('error', reject)
    child.once('close', (code) => resolve({ code: code ?? 1, stdout, stderr }))
    // A program that ended without reading broke the pipe: its code says how it ended.
    child.stdin.on('error', () => undefined)
    child.stdin.end(input)
  })
}
