/**
 * The `cordon` program over its table of commands: what was typed is parsed, the command runs in the world that
 * it is given, and every way it can end becomes an exit code.
 */
import { CommanderError, Option, Command as Program } from 'commander'
import { checkUrl, createClient } from './client.ts'
import { type Command, createOptions, EXIT, type ExitCode, Failure, type Io, usage } from './command.ts'
import { ACTION_COMMANDS } from './commands/actions.ts'
import { AUTH_COMMANDS } from './commands/auth.ts'
import { COMPLETION_COMMANDS } from './commands/completion.ts'
import { EVENT_COMMANDS } from './commands/events.ts'
import { FILE_COMMANDS } from './commands/files.ts'
import { HOST_COMMANDS } from './commands/hosts.ts'
import { INCIDENT_COMMANDS } from './commands/incidents.ts'
import { ISOLATION_COMMANDS } from './commands/isolation.ts'
import { KEY_COMMANDS } from './commands/keys.ts'
import { PROCESS_COMMANDS } from './commands/processes.ts'
import { TELEMETRY_COMMANDS } from './commands/telemetry.ts'
import { createHome, homeFolder } from './home.ts'
import { printable, printableJson } from './printable.ts'
import { createPrinter } from './printer.ts'

export const COMMANDS: readonly Command[] = [
  ...AUTH_COMMANDS,
  ...KEY_COMMANDS,
  ...HOST_COMMANDS,
  ...ISOLATION_COMMANDS,
  ...INCIDENT_COMMANDS,
  ...PROCESS_COMMANDS,
  ...FILE_COMMANDS,
  ...TELEMETRY_COMMANDS,
  ...ACTION_COMMANDS,
  ...EVENT_COMMANDS,
  ...COMPLETION_COMMANDS,
]

const URL_DEFAULT = 'http://localhost:7800'
const TIMEOUT_MS_DEFAULT = 30_000
const NOUNS: Readonly<Record<string, string>> = {
  auth: 'sign in and out',
  context: 'the controllers that this machine knows',
  user: 'operators',
  keys: 'keys to sign actions with',
  host: 'hosts and their agents',
  incident: 'incidents',
  detection: 'detections',
  proc: 'processes on hosts',
  file: 'files on hosts',
  telemetry: 'what hosts leave out and keep',
  action: 'actions and their approvals',
  event: 'what hosts reported',
  completion: 'completion for shells',
}

/** Runs the program with what was typed after its name. Never throws for what an operator can bring about. */
export async function runCordon(typed: readonly string[], io: Io, version = '0.1.0'): Promise<ExitCode> {
  // `--json FIELDS` would take the word after it, so the fields are given with `=` alone.
  const words = typed.map((word) => (word === '--json' ? '--json=*' : word))
  const wantsJson = words.some((word) => word.startsWith('--json='))
  let exitCode: ExitCode = EXIT.ok
  const program = createProgram(io, version, wantsJson, async (command, positional, values) => {
    exitCode = await runCommand(io, command, positional, values)
  })
  try {
    if (words.length === 0) {
      program.outputHelp()
      return EXIT.ok
    }
    await program.parseAsync([...words], { from: 'user' })
    return exitCode
  } catch (error) {
    return report(error, io, wantsJson, words)
  }
}

function report(error: unknown, io: Io, wantsJson: boolean, words: readonly string[]): ExitCode {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return EXIT.ok
    if (error.code === 'commander.help') return EXIT.usage
    const told = usage(
      error.message.replace(/^error: /, ''),
      `See: cordon ${[...namedBy(words), '--help'].join(' ')}`,
    )
    return report(told, io, wantsJson, words)
  }
  const failure = error instanceof Failure ? error : unexpected(error, io)
  const exitCode = io.signal.aborted && failure.exitCode === EXIT.failed ? EXIT.interrupted : failure.exitCode
  if (wantsJson) {
    const { code, message, hint, requestId } = failure
    io.stderr.write(`${printableJson({ error: { code, message, hint, request_id: requestId } })}\n`)
  } else {
    const lines = failure.message.split('\n').map(printable)
    io.stderr.write(`cordon: ${lines.join('\n')}\n`)
    if (failure.hint !== '') io.stderr.write(`${printable(failure.hint)}\n`)
  }
  return exitCode
}

/** Noun and verb among what was typed, as far as there are such. */
function namedBy(words: readonly string[]): readonly string[] {
  const [noun, verb] = words.filter((word) => /^[a-z-]+$/.test(word) && !word.startsWith('-'))
  const known = (name: string) => COMMANDS.some((command) => command.name === name)
  if (noun === undefined || !COMMANDS.some(({ name }) => name.split(' ')[0] === noun)) return []
  return verb !== undefined && known(`${noun} ${verb}`) ? [noun, verb] : [noun]
}

/** Files and disks fail with a code; anything else is an error of the program. */
function unexpected(error: unknown, io: Io): Failure {
  const { code, message } = error as NodeJS.ErrnoException
  if (typeof code === 'string') return new Failure(EXIT.failed, code, message)
  if (io.environment['CORDON_DEBUG']) io.stderr.write(`${(error as Error).stack ?? ''}\n`)
  return new Failure(EXIT.failed, 'internal', `unexpected: ${message}`, 'CORDON_DEBUG=1 shows where.')
}

type Invoke = (
  command: Command,
  positional: readonly string[],
  values: Readonly<Record<string, unknown>>,
) => Promise<void>

function createProgram(io: Io, version: string, wantsJson: boolean, invoke: Invoke): Program {
  const program = new Program('cordon')
    .description('Operator commands of Cordon: see what happened on hosts, and end it.')
    .version(version)
    // Flags for all commands may stand before the noun, too: `cordon --json incident ls`.
    .enablePositionalOptions()
    .addHelpText('after', EXIT_HELP)
  addGlobalOptions(program)
  const nouns = new Map<string, Program>()
  for (const command of COMMANDS) {
    const [noun = '', verb] = command.name.split(' ')
    const parent =
      verb === undefined ? program : (nouns.get(noun) ?? program.command(noun).summary(NOUNS[noun] ?? ''))
    if (verb !== undefined && !nouns.has(noun)) {
      nouns.set(noun, parent.enablePositionalOptions().addHelpText('after', examplesOf(noun)))
    }
    addLeaf(parent, verb ?? noun, command, invoke)
  }
  configure(program, io, wantsJson)
  return program
}

/** Commander writes and exits by itself unless it is told, command by command. */
function configure(program: Program, io: Io, wantsJson: boolean): void {
  program.exitOverride().configureOutput({
    writeOut: (text) => io.stdout.write(text),
    writeErr: (text) => io.stderr.write(text),
    // Told once, by `report`.
    outputError: () => undefined,
    getOutHelpWidth: () => io.stdout.columns,
    getErrHelpWidth: () => io.stderr.columns,
    getOutHasColors: () => false,
    getErrHasColors: () => false,
  })
  if (!wantsJson) program.showSuggestionAfterError(true)
  for (const child of program.commands) configure(child, io, wantsJson)
}

function addLeaf(parent: Program, word: string, command: Command, invoke: Invoke): void {
  const leaf = parent.command(word).summary(command.summary).description(sentence(command.summary))
  for (const { form, summary } of command.arguments ?? []) leaf.argument(form, summary)
  for (const { flags, summary, choices } of [
    ...(command.options ?? []),
    ...(command.changes ? CHANGE_OPTIONS : []),
  ]) {
    leaf.addOption(choices ? new Option(flags, summary).choices([...choices]) : new Option(flags, summary))
  }
  addGlobalOptions(leaf)
  leaf.addHelpText('after', `\nExample:\n  ${command.example}`)
  leaf.action(async () => {
    const root = parent.parent ?? parent
    const given = Object.entries(named(leaf)).filter(([, value]) => value !== false)
    await invoke(command, leaf.args, { ...named(root), ...Object.fromEntries(given) })
  })
}

function addGlobalOptions(program: Program): void {
  for (const { flags, summary, choices } of GLOBAL_OPTIONS) {
    const option = new Option(flags, summary).helpGroup('Everywhere:')
    program.addOption(choices ? option.choices([...choices]) : option)
  }
}

function examplesOf(noun: string): string {
  const examples = COMMANDS.filter(({ name }) => name.startsWith(`${noun} `)).map(
    ({ example }) => `  ${example}`,
  )
  return `\nExamples:\n${examples.join('\n')}`
}

/** `--no-x` is a switch called noX here, not x set to false. */
function named(leaf: Program): Record<string, unknown> {
  const values: Record<string, unknown> = { ...leaf.opts() }
  for (const option of leaf.options.filter(({ negate }) => negate)) {
    const name = option.attributeName()
    values[`no${name.charAt(0).toUpperCase()}${name.slice(1)}`] = values[name] === false
    delete values[name]
  }
  return values
}

/** Of verbs that change something. */
export const CHANGE_OPTIONS: NonNullable<Command['options']> = [
  { flags: '--reason <text>', summary: 'why; it is signed and kept' },
  { flags: '--incident <id>', summary: 'incident that this belongs to' },
  { flags: '--ttl <duration>', summary: 'expires unless it began by then (default 15m, at most 1d)' },
  { flags: '--dry-run', summary: 'show what would be signed, and stop' },
  { flags: '--yes', summary: 'do not ask' },
  { flags: '--wait', summary: 'follow it until it is final' },
  { flags: '--idempotency-key <key>', summary: 'the same key gives the same action back' },
  { flags: '--key <name>', summary: 'key to sign with, when there are several' },
  { flags: '--passphrase-stdin', summary: 'read the key’s passphrase from standard input' },
]

export const GLOBAL_OPTIONS: NonNullable<Command['options']> = [
  { flags: '--json <fields>', summary: 'JSON; --json=id,state keeps these fields' },
  {
    flags: '-o, --output <form>',
    summary: 'how lists are printed',
    choices: ['table', 'wide', 'name', 'csv'],
  },
  { flags: '--csv', summary: 'the same as -o csv: all columns, for spreadsheets' },
  { flags: '-q, --quiet', summary: 'no remarks on standard error' },
  { flags: '--no-color', summary: 'no colour' },
  { flags: '--tz <zone>', summary: 'zone of times (default UTC)' },
  { flags: '--url <address>', summary: 'address of the controller (or CORDON_URL)' },
  { flags: '--context <name>', summary: 'controller by name' },
  { flags: '--home <folder>', summary: 'folder of contexts and keys (or CORDON_CLI_HOME)' },
  { flags: '--timeout <duration>', summary: 'how long to wait for answers, and with --wait for the end' },
  { flags: '-v, --verbose', summary: 'tell each request' },
]

const EXIT_HELP = `
Exit codes: 0 ok, 1 failed, 2 usage, 3 cancelled, 4 not signed in or not allowed, 5 not found,
6 partly done, 7 waits for approval, 8 waited too long, 130 Ctrl-C.

First:
  cordon auth login --url ${URL_DEFAULT}
  cordon incident ls`

async function runCommand(
  io: Io,
  command: Command,
  positional: readonly string[],
  values: Readonly<Record<string, unknown>>,
): Promise<ExitCode> {
  const options = createOptions(values)
  const home = createHome(homeFolder(io.environment, options.text('home')))
  const contexts = home.read()
  const contextName = options.text('context') ?? contexts.current
  if (!/^[a-z0-9][a-z0-9._-]{0,63}$/.test(contextName))
    throw usage('a context is named with a-z, 0-9, dot, dash')
  const entry = Object.hasOwn(contexts.contexts, contextName) ? contexts.contexts[contextName] : undefined
  const url = checkUrl(options.text('url') ?? io.environment['CORDON_URL'] ?? entry?.url ?? URL_DEFAULT)
  const output = options.has('csv') ? 'csv' : options.text('output')
  const quiet = options.has('quiet')
  const print = createPrinter(io, {
    json: options.text('json'),
    output: output === 'wide' || output === 'name' || output === 'csv' ? output : 'table',
    colour: io.stdout.isTerminal && !options.has('noColor') && !io.environment['NO_COLOR'],
    timeZone: options.text('tz') ?? 'UTC',
  })
  const timeoutMs = Math.min(options.duration('timeout') ?? TIMEOUT_MS_DEFAULT, 600_000)
  return command.run({
    io,
    home,
    arguments: positional,
    options,
    print,
    note: (text) => quiet || io.stderr.write(`${text}\n`),
    client: (signal = io.signal) => {
      // Read anew, for signing in changes it; and never sent to another address than it came from.
      const now = home.read().contexts[contextName]
      return createClient({
        url,
        token: now?.url === url ? now.token : null,
        timeoutMs,
        signal,
        warn: (line) => quiet || io.stderr.write(`Warning: ${printable(line)}\n`),
        ...(options.has('verbose')
          ? { trace: (line: string) => io.stderr.write(`${printable(line)}\n`) }
          : {}),
      })
    },
    contextName,
    url,
    commands: COMMANDS,
  })
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`
}
