/** What tests attack with: harmless, in sessions of their own, ended by whoever started them. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { compileGenerateExec, compileTinyExit } from '../../agent/native/testing/compile.ts'
import { readBootId } from '../../agent/platform/linux/host.ts'
import { readStat } from '../../agent/platform/linux/processes.ts'
import { eicar } from '../../scripts/demo/harmless.ts'
import { ROOT } from '../../scripts/setup/program.ts'
import type { FileTarget, ProcessTarget } from '../../shared/protocol/commands.ts'

export const EICAR_SHA256 = createHash('sha256').update(eicar()).digest('hex')

export interface Dropper extends Disposable {
  readonly pid: number
  readonly target: ProcessTarget
  readonly folder: string
  /** Writes the EICAR test file under this name, and resolves with its path when it is closed. */
  drop(name: string): Promise<string>
}

/** A shell that writes files itself: what it is to write comes over its standard input. */
export function startDropper(parent: string, name: string): Dropper {
  const folder = join(parent, name)
  mkdirSync(folder, { recursive: true })
  const script =
    'while read -r left right path; do printf %s%s "$left" "$right" > "$path" && echo "$path"; done'
  const child = spawn('/bin/sh', ['-c', script, name], {
    cwd: folder,
    detached: true,
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const written = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const text = eicar()
  const target = processTarget(child)
  return {
    pid: target.pid,
    target,
    folder,
    async drop(file) {
      const path = join(folder, file)
      child.stdin.write(`${text.slice(0, 20)} ${text.slice(20)} ${path}\n`)
      const line = await written.next()
      if (line.value !== path) throw new Error(`the dropper wrote ${line.value} instead of ${path}`)
      return path
    },
    [Symbol.dispose]() {
      child.stdin.destroy()
      child.kill('SIGKILL')
    },
  }
}

export interface Sleeper extends Disposable {
  readonly pid: number
  readonly target: ProcessTarget
  alive(): boolean
}

/** A process that only waits, in a session of its own, working in `folder`. */
export function startSleeper(folder: string): Sleeper {
  const child = spawn('/bin/sleep', ['600'], { cwd: folder, detached: true, stdio: 'ignore' })
  const target = processTarget(child)
  return {
    pid: target.pid,
    target,
    alive: () =>
      readStat(target.pid)?.startTicks === target.startTicks &&
      child.exitCode === null &&
      child.signalCode === null,
    [Symbol.dispose]: () => {
      child.kill('SIGKILL')
    },
  }
}

function processTarget(child: ChildProcess): ProcessTarget {
  const pid = child.pid ?? 0
  const startTicks = readStat(pid)?.startTicks
  if (startTicks === undefined) throw new Error('the process ended at once')
  return { kind: 'process', pid, startTicks, bootId: readBootId(), executableSha256: null }
}

/** The EICAR test file at a path, by its content alone. */
export function eicarTarget(path: string): FileTarget {
  return { kind: 'file', path, pathBytes: null, device: null, inode: null, sha256: EICAR_SHA256 }
}

/** The program of the detect bench: a session whose child writes a file and lives a few milliseconds. */
export function compileWriter(folder: string): string {
  const program = join(folder, 'write-and-linger')
  const source = join(ROOT, 'scripts', 'bench', 'native', 'write-and-linger.c')
  execFileSync('gcc', ['-O2', '-static', '-o', program, source])
  return program
}

/** Processes that live for microseconds, at a steady rate, until it is disposed of. */
export function startLoad(folder: string, perSecond: number): AsyncDisposable {
  const executable = compileTinyExit(folder, 'load')
  const generator = compileGenerateExec(folder)
  const child = spawn(generator, [String(perSecond * 3_600), String(perSecond), executable], {
    stdio: 'ignore',
  })
  const exited = new Promise((resolve) => child.once('exit', resolve))
  return {
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await exited
    },
  }
}
