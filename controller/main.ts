#!/usr/bin/env node
/** `cordon-controller`: the controller's own command line. Operators use `cordon`. */
import { join } from 'node:path'
import { Command, CommanderError } from 'commander'
import { keepAddonsIn } from '../shared/node/addons.ts'
import { createLogger } from '../shared/node/logger.ts'
import { loadSettings } from '../shared/node/settings.ts'
import { holdStateFolder } from '../shared/node/state-lock.ts'
import { stopSignal } from '../shared/node/stop-signal.ts'
import { BackupError } from './backup/backup-error.ts'
import { addBackupCommands } from './backup/commands.ts'
import { refusalAt } from './backup/issuing.ts'
import { addOperator, CeremonyError, initialise, parseOperator, paths } from './ceremony.ts'
import { createProcessIo } from './cli/terminal.ts'
import { CONTROLLER_SETTINGS, type ControllerSettings } from './config/settings.ts'
import { createLocalToken } from './local-token.ts'
import { createOperators } from './operators/operators.ts'
import { ROLES, type Role } from './operators/role.ts'
import { runController } from './run.ts'
import { becomeStateOwner } from './state-owner.ts'

const VERSION = '0.1.0'
const FINGERPRINT_GROUPS = /.{8}/g

interface SettingsOption {
  readonly config?: string
}

const program = new Command('cordon-controller')
  .description('Takes telemetry from agents, forms incidents, has actions approved and sends them.')
  .version(VERSION)
  .option('--config <file>', 'JSON file with settings; the environment wins over it (docs/settings.md)')
  .exitOverride()
  .showHelpAfterError('(see --help)')
  .addHelpText('after', example('init --operator ada:PUBLICKEY', 'run', 'first-sign-in'))

function settings(): ControllerSettings {
  const { config } = program.opts<SettingsOption>()
  const loaded = loadSettings(CONTROLLER_SETTINGS, config ?? null, process.env)
  if (!loaded.ok) throw new CeremonyError(loaded.problems.join('\n'))
  becomeStateOwner(loaded.settings.stateFolder)
  keepAddonsIn(join(loaded.settings.stateFolder, 'addons'))
  return loaded.settings
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

program
  .command('init')
  .description('Makes root, issuers, server certificate and keyset, once. Needs at least one operator key.')
  .requiredOption('--operator <name:publickey>', 'operator who may sign; may be repeated', collect, [])
  .addHelpText('after', example('init --operator ada:PUBLICKEY --operator grace:PUBLICKEY:C'))
  .action(async (options: { operator: string[] }) => {
    const files = paths(settings().stateFolder)
    const operators = options.operator.map(parseOperator)
    if (operators.length === 0) {
      throw new CeremonyError(
        'without an operator nobody could sign: --operator NAME:PUBLICKEY, from `cordon keys create NAME`',
      )
    }
    const authority = await initialise(settings(), operators)
    say(
      `made root key (RSA-4096)      ${files.authority}/root: move it to a safe place, the controller runs without it`,
    )
    say(`made issuers and certificate  ${files.authority}`)
    say(`root fingerprint              ${authority.rootFingerprint.match(FINGERPRINT_GROUPS)?.join(' ')}`)
    say(
      `keyset 1 trusts               ${operators.map((one) => `${one.name} (${one.classes.join(', ')})`).join(', ')}`,
    )
    if (operators.length === 1) {
      say(
        'one operator alone: what destroys (class D) takes ONE signature; add a second operator to need two',
      )
    }
  })

program
  .command('run')
  .description('Runs the controller until it is told to stop.')
  .option('--stop-with-stdin', 'ends when standard input closes, for launchers')
  .addHelpText('after', example('run', '--config /etc/cordon-controller.json run'))
  .action(async (options: { stopWithStdin?: boolean }) => {
    const given = settings()
    using held = holdStateFolder(given.stateFolder)
    if (!held) {
      throw new CeremonyError(
        `a controller runs already with its state in ${given.stateFolder}; stop it first, or set CORDON_CONTROLLER_STATE`,
      )
    }
    const logger = createLogger('cordon-controller', given.logLevel)
    await runController(given, logger, stopSignal(options.stopWithStdin ?? false), (reachable) => {
      say(`READY ${JSON.stringify(reachable)}`)
    })
  })

program
  .command('token')
  .description('Makes an enrolment token for one host, valid for an hour at most.')
  .option('--ttl <minutes>', 'how long it is valid', '60')
  .addHelpText('after', example('token --ttl 15'))
  .action(async (options: { ttl: string }) => {
    const minutes = Number(options.ttl)
    if (!(minutes > 0 && minutes <= 60))
      throw new CeremonyError('--ttl must be more than 0 and at most 60 minutes')
    mustIssue()
    say(await createLocalToken(settings(), minutes * 60_000))
  })

program
  .command('first-sign-in')
  .description('Makes the one-time code with which the first administrator signs in.')
  .addHelpText('after', example('first-sign-in'))
  .action(() => {
    const operators = createOperators({ path: paths(settings().stateFolder).operators })
    try {
      const made = operators.createFirstSignIn()
      if (!made) throw new CeremonyError('there are users already; an administrator makes further ones')
      say(made.code)
    } finally {
      operators.close()
    }
  })

program
  .command('user')
  .description('Makes a user; the password is typed, or read from standard input.')
  .argument('<name>')
  .option('--role <role>', ROLES.join(', '), 'responder')
  .addHelpText('after', example('user grace --role responder'))
  .action(async (name: string, options: { role: string }) => {
    const role = ROLES.find((one): one is Role => one === options.role)
    if (!role) throw new CeremonyError(`--role must be one of ${ROLES.join(', ')}`)
    const operators = createOperators({ path: paths(settings().stateFolder).operators })
    try {
      const made = await operators.createUser(name, role, await readPassword())
      if (!made.ok) throw new CeremonyError(describe(made.error))
      say(`user ${name} (${role}) made`)
    } finally {
      operators.close()
    }
  })

program
  .command('keyset')
  .description('Who may sign commands; changed by the root’s key alone.')
  .command('add')
  .description('Signs a new keyset with one operator more. A running controller takes it at its next start.')
  .requiredOption('--name <name>', 'name of the operator')
  .requiredOption('--public-key <hex>', 'as `cordon keys show NAME` shows it')
  .option('--classes <letters>', 'C (contain, release), D (destroy) or both', 'CD')
  .addHelpText('after', example('keyset add --name grace --public-key HEX --classes C'))
  .action(async (options: { name: string; publicKey: string; classes: string }) => {
    const operator = parseOperator(`${options.name}:${options.publicKey}:${options.classes}`)
    mustIssue()
    const keyset = await addOperator(settings(), operator)
    say(`keyset ${keyset.version} trusts ${keyset.operators.map((one) => one.name).join(', ')}`)
    process.stderr.write('a controller that runs takes it at its next start\n')
  })

addBackupCommands({
  program,
  stateFolder: () => settings().stateFolder,
  foldersOf: paths,
  readPassphrase: (twice) => readPassword('Passphrase of the backup: ', twice),
  say,
  example,
  version: VERSION,
})

/** A controller that came out of a backup issues nothing before it is confirmed. */
function mustIssue(): void {
  const refusal = refusalAt(paths(settings().stateFolder).state)
  if (refusal !== null) throw new CeremonyError(refusal)
}

/** Hidden when it is typed. */
async function readPassword(prompt = 'Password: ', twice = true): Promise<string> {
  const { stdin } = createProcessIo(process)
  if (!stdin.isTerminal) return (await stdin.readAll()).replace(/\n$/, '')
  const password = await stdin.ask(prompt, true)
  if (password === null) throw new CeremonyError('cancelled')
  if (twice && (await stdin.ask('Again: ', true)) !== password) throw new CeremonyError('the two differ')
  return password
}

function example(...commands: readonly string[]): string {
  return `\nExample:\n${commands.map((words) => `  cordon-controller ${words}`).join('\n')}`
}

function collect(value: string, before: string[]): string[] {
  return [...before, value]
}

function describe(error: { readonly kind: string; readonly reason?: string }): string {
  return error.reason ?? error.kind
}

const LISTENERS = ['apiPort', 'gatewayPort', 'enrolmentPort'] as const

/** The network's refusals name the setting to change; anything unexpected is told with its stack. */
function describeFailure(error: unknown): string {
  if (error instanceof CeremonyError || error instanceof BackupError) return error.message
  const { code, message, stack, port, address } = error as NodeJS.ErrnoException & {
    port?: number
    address?: string
  }
  if (code !== 'EADDRINUSE' && code !== 'EACCES' && code !== 'EADDRNOTAVAIL') return stack ?? message
  if (port === undefined) return message
  const setting = LISTENERS.find((name) => settings()[name] === port)
  const named = setting === undefined ? '' : ` (${setting}, ${CONTROLLER_SETTINGS[setting].environment})`
  const at = `${address ?? 'the address'} port ${port}${named}`
  if (code === 'EADDRINUSE') return `${at} is in use; stop what listens there, or choose another port`
  if (code === 'EACCES') return `${at} is not for this user to listen on; choose a port above 1023`
  return `${at} is no address of this host; set apiAddress or gatewayAddress to one that is`
}

async function main(): Promise<number> {
  // Whatever is made without a mode of its own is for its owner alone.
  process.umask(0o077)
  // Node would open an inspector at this signal, through which its sender could run anything in here.
  process.on('SIGUSR1', () => undefined)
  try {
    await program.parseAsync()
    return 0
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    process.stderr.write(`cordon-controller: ${describeFailure(error)}\n`)
    return 1
  }
}

main().then((code) => {
  // What is left open after a failure (a worker, a socket) must not keep a dead controller alive.
  process.exit(code)
})
