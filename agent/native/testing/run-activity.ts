/** Runs `make-activity` for tests: to its end, or held while what it has open is looked at. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

/** What the program says that it did, once all was done. */
export interface ActivityReport {
  readonly behaviour: string
  /** Tries, and how many of them the kernel refused. */
  readonly made: number
  readonly failed: number
  readonly pid: number
  /** Name of the first errno, such as `ENOENT`. */
  readonly error?: string
  /** With --swap: how often the kernel took what was put in the argument's place. */
  readonly lured?: number
  readonly port?: number
  readonly lurePort?: number
  /** Own ports of sockets, or the peers' ones for `tcp-accept`. */
  readonly ports?: readonly number[]
  readonly children?: readonly number[]
}

export interface ActivityRun {
  readonly report: ActivityReport
  readonly status: number
}

export interface HeldActivity extends AsyncDisposable {
  readonly report: ActivityReport
}

/** Status of a run with --compat on a machine whose kernel has no 32-bit system calls. */
export const COMPAT_MISSING_STATUS = 3

const RUN_MS = 60_000

/** Runs `command`, which starts or enters the program, to its end. Throws with what it said when it told nothing. */
export async function runActivity(command: readonly string[]): Promise<ActivityRun> {
  const started = start(command)
  started.child.stdin.end()
  const [status] = await once(started.child, 'close')
  const last = started.lines.at(-1)
  if (last === undefined)
    throw new Error(`${command.join(' ')} ended with ${status} and told nothing: ${started.said()}`)
  return { report: JSON.parse(last), status }
}

/** Runs it with --hold: all it opened is open, and its children live, until the result is disposed of. */
export async function holdActivity(command: readonly string[]): Promise<HeldActivity> {
  const started = start([...command, '--hold'])
  const [line] = await Promise.race([once(started.reader, 'line'), once(started.child, 'close')])
  if (typeof line !== 'string') throw new Error(`${command.join(' ')} told nothing: ${started.said()}`)
  return {
    report: JSON.parse(line),
    async [Symbol.asyncDispose]() {
      const closed = once(started.child, 'close')
      started.child.stdin.end()
      await closed
    },
  }
}

export interface DnsServer {
  /** What it served, once it served as many questions as it was to. */
  readonly served: Promise<ActivityRun>
}

/** Starts `dns-serve`, and resolves once it listens. */
export async function startDnsServer(command: readonly string[]): Promise<DnsServer> {
  const started = start(command)
  started.child.stdin.end()
  const closed = once(started.child, 'close')
  const [line] = await Promise.race([once(started.reader, 'line'), closed])
  if (typeof line !== 'string') throw new Error(`${command.join(' ')} told nothing: ${started.said()}`)
  return {
    served: closed.then(([status]) => ({ report: JSON.parse(started.lines.at(-1) ?? ''), status })),
  }
}

function start(command: readonly string[]) {
  const [program = '', ...words] = command
  const child = spawn(program, words, { timeout: RUN_MS, killSignal: 'SIGKILL' })
  const lines: string[] = []
  let said = ''
  const reader = createInterface({ input: child.stdout }).on('line', (line) => lines.push(line))
  child.stderr.on('data', (chunk) => {
    said = (said + chunk).slice(-4_000)
  })
  child.stdin.on('error', () => undefined)
  return { child, reader, lines, said: () => said }
}
