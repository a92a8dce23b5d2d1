/**
 * Starts the scanner child. It is a program and its arguments, never a shell; it inherits three pipes and, where
 * descriptors can be passed, one socket, and an environment of its own.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { ADDON_FOLDER_VARIABLE } from '../../../shared/node/addons.ts'

export interface ScannerProgram {
  readonly command: string
  readonly args: readonly string[]
}

export interface ScannerProcess {
  readonly pid: number
  /** What is written to a process that has ended is lost. */
  write(data: Buffer): void
  onOutput(listener: (chunk: Buffer) => void): void
  /** Called once, when the process is gone. `why` says how it ended, with the last of its error output. */
  onExit(listener: (why: string) => void): void
  kill(): void
  /** Resident memory; null when it cannot be read. */
  residentBytes(): number | null
  /** CPU time of all its threads so far, in steps of 10 ms; null when it cannot be read. */
  cpuMs(): number | null
}

/** USER_HZ is 100 on every architecture that is supported. */
const MILLISECONDS_PER_TICK = 10
const ERROR_OUTPUT_CHARACTERS_MAX = 2_000

/** `descriptorSocket` becomes descriptor 3 of the child; null: there is none. Throws when it cannot start. */
export function startScannerProcess(
  program: ScannerProgram,
  descriptorSocket: number | null,
): ScannerProcess {
  const addonFolder = process.env[ADDON_FOLDER_VARIABLE]
  const child = spawn(program.command, [...program.args], {
    cwd: '/',
    // Nothing of the agent's environment, where secrets may stand. One arena: threads here allocate little.
    env: {
      LANG: 'C.UTF-8',
      MALLOC_ARENA_MAX: '1',
      UV_THREADPOOL_SIZE: '1',
      ...(addonFolder === undefined ? {} : { [ADDON_FOLDER_VARIABLE]: addonFolder }),
    },
    stdio: ['pipe', 'pipe', 'pipe', ...(descriptorSocket === null ? [] : [descriptorSocket])],
    shell: false,
  })
  return wrap(child)
}

function wrap(child: ChildProcess): ScannerProcess {
  const { stdin, stdout, stderr, pid } = child
  // A program that cannot be started has no pid; its error arrives as the end of the process.
  let errorOutput = ''
  // What is written to a child that just ended is lost with it: its end is told by `exit`.
  stdin?.on('error', () => undefined)
  stdout?.on('error', () => undefined)
  stderr?.on('error', () => undefined)
  stderr?.setEncoding('utf8')
  stderr?.on('data', (text: string) => {
    errorOutput = (errorOutput + text).slice(-ERROR_OUTPUT_CHARACTERS_MAX)
  })
  return {
    pid: pid ?? 0,
    write(data) {
      stdin?.write(data)
    },
    onOutput(listener) {
      stdout?.on('data', listener)
    },
    onExit(listener) {
      let isTold = false
      const tell = (how: string) => {
        if (isTold) return
        isTold = true
        listener(errorOutput === '' ? how : `${how}: ${errorOutput.trim()}`)
      }
      child.once('error', (error) => tell(`cannot start: ${error.message}`))
      // `close` comes after the pipes are drained, so that an answer written just before the end counts.
      child.once('close', (code, signal) => tell(signal === null ? `status ${code}` : `signal ${signal}`))
    },
    kill() {
      child.kill('SIGKILL')
    },
    residentBytes() {
      try {
        const kibibytes = /^VmRSS:\s+([0-9]+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]
        return kibibytes === undefined ? null : Number(kibibytes) * 1_024
      } catch {
        return null
      }
    },
    cpuMs() {
      try {
        // proc_pid_stat(5): utime and stime are fields 14 and 15; the name before them may hold anything.
        const line = readFileSync(`/proc/${pid}/stat`, 'latin1')
        const fields = line.slice(line.lastIndexOf(')') + 2).split(' ')
        const ticks = Number(fields[11]) + Number(fields[12])
        return Number.isFinite(ticks) ? ticks * MILLISECONDS_PER_TICK : null
      } catch {
        return null
      }
    },
  }
}
