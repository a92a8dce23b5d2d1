/** Commands as data: what each is called, takes and does. `run.ts` turns the table into a program. */
import type { Client } from './client.ts'
import type { Home } from './home.ts'
import type { Printer } from './printer.ts'

export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  cancelled: 3,
  auth: 4,
  notFound: 5,
  partly: 6,
  awaitsApproval: 7,
  waitTimedOut: 8,
  interrupted: 130,
} as const
export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

/** Ends a command. What it says goes to standard error, as text or as JSON. */
export class Failure extends Error {
  readonly exitCode: ExitCode
  readonly code: string
  readonly hint: string
  readonly requestId: string | null

  constructor(exitCode: ExitCode, code: string, message: string, hint = '', requestId: string | null = null) {
    super(message)
    this.exitCode = exitCode
    this.code = code
    this.hint = hint
    this.requestId = requestId
  }
}

export function usage(message: string, hint = ''): Failure {
  return new Failure(EXIT.usage, 'usage', message, hint)
}

/** The world of a command: a test passes its own. */
export interface Io {
  readonly stdout: Sink
  readonly stderr: Sink
  readonly stdin: Source
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Aborts on Ctrl-C. */
  readonly signal: AbortSignal
  readonly clock: () => number
}

interface Sink {
  write(text: string): void
  readonly isTerminal: boolean
  /** Width in characters; read anew for each table. */
  readonly columns: number
}

interface Source {
  readonly isTerminal: boolean
  /** One line that is typed; `hidden` ones are not shown. Null at the end of the input. */
  ask(prompt: string, hidden: boolean): Promise<string | null>
  /** All of a piped input, at most 64 KiB. */
  readAll(): Promise<string>
}

export interface OptionSpec {
  /** Commander's form: `--host <host>`, or `--tree` for a switch. */
  readonly flags: string
  readonly summary: string
  readonly choices?: readonly string[]
}

export interface Command {
  /** Noun and verb, or a lone verb. */
  readonly name: string
  readonly summary: string
  readonly example: string
  /** Commander's form: `<id>`, `[id]`, `<id...>`. */
  readonly arguments?: readonly { readonly form: string; readonly summary: string }[]
  readonly options?: readonly OptionSpec[]
  /** Gets the flags of verbs that change something. */
  readonly changes?: boolean
  readonly run: (context: CommandContext) => Promise<ExitCode>
}

export interface CommandContext {
  readonly io: Io
  readonly home: Home
  readonly arguments: readonly string[]
  readonly options: Options
  readonly print: Printer
  /** Progress and remarks, on standard error; silent with `-q`. */
  readonly note: (text: string) => void
  /** A client of the context's controller, signed in when there is a session. */
  readonly client: (signal?: AbortSignal) => Client
  readonly contextName: string
  readonly url: string
  readonly commands: readonly Command[]
}

/** Options as they were typed, by their long name in camel case. */
export interface Options {
  has(name: string): boolean
  text(name: string): string | undefined
  required(name: string): string
  /** Of an option that takes several; empty when it was not given. */
  list(name: string): readonly string[]
  whole(name: string, fallback: number, max: number): number
  /** Milliseconds of a duration such as `30s`. */
  duration(name: string): number | undefined
}

export function createOptions(values: Readonly<Record<string, unknown>>): Options {
  const text = (name: string) => {
    const value = values[name]
    return typeof value === 'string' ? value : undefined
  }
  return {
    has: (name) => values[name] === true || text(name) !== undefined,
    text,
    required(name) {
      const value = text(name)
      if (value === undefined || value.trim() === '') {
        throw usage(
          `${flagOf(name)} is needed`,
          name === 'reason' ? 'As in --reason "why": it is kept with what was done.' : '',
        )
      }
      return value
    },
    list(name) {
      const value = values[name]
      return Array.isArray(value) ? value.filter((word) => typeof word === 'string') : []
    },
    whole(name, fallback, max) {
      const value = text(name)
      if (value === undefined) return fallback
      const number = /^[0-9]{1,9}$/.test(value) ? Number(value) : 0
      if (number < 1 || number > max) throw usage(`${flagOf(name)} takes a whole number from 1 to ${max}`)
      return number
    },
    duration(name) {
      const value = text(name)
      return value === undefined ? undefined : parseDuration(value, flagOf(name))
    },
  }
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

function parseDuration(text: string, flag: string): number {
  const [, count = '', unit = ''] = /^([0-9]{1,9})(ms|s|m|h|d)$/.exec(text) ?? []
  const durationMs = Number(count) * (UNIT_MS[unit] ?? 0)
  if (durationMs <= 0) throw usage(`${flag} takes a duration such as 500ms, 30s, 5m, 2h or 1d`)
  return durationMs
}

function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
}
