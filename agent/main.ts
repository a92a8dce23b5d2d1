#!/usr/bin/env node
/**
 * `cordon-agent`: what is typed on a host. Each command loads what it needs when it runs: the scanner child is
 * this program too, and must stay small.
 */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { Command, CommanderError } from 'commander'
import { keepAddonsIn } from '../shared/node/addons.ts'
import { loadSettings } from '../shared/node/settings.ts'
import { stopSignal } from '../shared/node/stop-signal.ts'
import { AGENT_SETTINGS, type AgentSettings } from './config/settings.ts'
import { AgentError } from './error.ts'
import { selectPlatform } from './platform/platform.ts'
import { AGENT_VERSION } from './version.ts'

const program = new Command('cordon-agent')
  .description('Watches this host, detects, and acts on signed commands.')
  .version(AGENT_VERSION)
  .option('--config <file>', 'JSON file with settings; the environment wins over it (docs/settings.md)')
  .exitOverride()
  .showHelpAfterError('(see --help)')
  .addHelpText('after', example('enroll https://controller.example:7802 TOKEN', 'run', 'status'))

function settings(): AgentSettings {
  const { config } = program.opts<{ config?: string }>()
  const loaded = loadSettings(AGENT_SETTINGS, config ?? null, process.env)
  if (!loaded.ok) throw new AgentError(loaded.problems.join('\n'))
  keepAddonsIn(join(loaded.settings.stateFolder, 'addons'))
  return loaded.settings
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

function example(...commands: readonly string[]): string {
  return `\nExample:\n${commands.map((words) => `  cordon-agent ${words}`).join('\n')}`
}

program
  .command('enroll')
  .description('Makes a key on this host and has the controller certify it.')
  .argument('<url>', 'enrolment address of the controller, https://HOST:PORT')
  .argument('<token>', 'one-time token, from `cordon host enroll-token`; `-` reads it from standard input')
  .addHelpText('after', example('enroll https://controller.example:7802 TOKEN'))
  .action(async (url: string, given: string) => {
    const { enrolHost } = await import('./cli/enrol-host.ts')
    const enrolled = await enrolHost(settings().stateFolder, url, given)
    if (!enrolled.ok) throw new AgentError(enrolled.reason)
    say(enrolled.said)
  })

program
  .command('run')
  .description('Runs the agent until it is told to stop.')
  .option('--stop-with-stdin', 'ends when standard input closes, for launchers')
  .addHelpText('after', example('run', '--config /etc/cordon-agent.json run'))
  .action(async (options: { stopWithStdin?: boolean }) => {
    const given = settings()
    const { holdStateFolder } = await import('../shared/node/state-lock.ts')
    using held = holdStateFolder(given.stateFolder)
    if (!held) {
      throw new AgentError(
        `an agent runs already with its state in ${given.stateFolder}: cordon-agent status tells of it`,
      )
    }
    const { createLogger } = await import('../shared/node/logger.ts')
    const { runAgent } = await import('./run.ts')
    const logger = createLogger('cordon-agent', given.logLevel)
    const { cleanAtStart } = await import('./cli/install-command.ts')
    for (const what of await cleanAtStart(given.stateFolder)) logger.info({ what }, 'left by an agent before')
    await runAgent(given, logger, stopSignal(options.stopWithStdin ?? false), (facts) => {
      say(`READY ${JSON.stringify(facts)}`)
    })
  })

program
  .command('status')
  .description(
    'Which sensors are in force and why, what was seen, buffered and lost, connection, certificate.',
  )
  .option('--telemetry', 'the rows of telemetry instead: what is seen here, by what, and why not more')
  .option('--json', 'as JSON')
  .addHelpText('after', example('status', 'status --telemetry', 'status --json'))
  .action(async (options: { json?: boolean; telemetry?: boolean }) => {
    const { stateFolder } = settings()
    const { askStatus } = await import('./health/status-socket.ts')
    const { describeStatus } = await import('./cli/describe-status.ts')
    const answer = await askStatus(stateFolder)
    if (answer.kind === 'failed') throw new AgentError(`${stateFolder}: ${answer.cause.message}`)
    if (answer.kind === 'answer') {
      const { describeTelemetry } = await import('./cli/describe-telemetry.ts')
      const inWords = options.telemetry ? describeTelemetry : describeStatus
      say(options.json ? JSON.stringify(answer.report) : inWords(answer.report))
      return
    }
    const { openIdentity } = await import('./identity/identity.ts')
    const identity = openIdentity(stateFolder)
    const enrolled = identity.ok ? `enrolled as ${identity.identity.agentId}` : identity.error.reason
    if (options.json) say(JSON.stringify({ running: false, enrolled: identity.ok }))
    const mend = identity.ok ? 'start it: cordon-agent run' : identity.error.mend
    throw new AgentError(`no agent runs with its state in ${stateFolder}; ${enrolled}\n${mend}`)
  })

program
  .command('scan')
  .description('Scans files and folders with YARA rules and indicators; changes nothing.')
  .argument('<path...>')
  .option('--rules <path...>', 'rule files or folders instead of those that ship')
  .option('--files-max <count>', 'stop after so many files', '1000000')
  .option('--json', 'NDJSON: one line per match, then the summary')
  .addHelpText(
    'after',
    `${example('scan /tmp /var/www', 'scan /srv --rules ./my-rules --json')}\n\nExit codes: 0 nothing found, 1 something found, 2 it cannot be done.`,
  )
  .action(async (paths: string[], options: { rules?: string[]; filesMax: string; json?: boolean }) => {
    const { createSilentLogger } = await import('../shared/node/logger.ts')
    const { scanOnDemand } = await import('./cli/scan.ts')
    process.exitCode = await scanOnDemand({
      paths: paths.map((path) => resolve(path)),
      rules: options.rules ?? [],
      contentFolders: settings().contentFolders,
      filesMax: Number(options.filesMax),
      json: options.json ?? false,
      signal: stopSignal(false),
      logger: createSilentLogger(),
    })
  })

program
  .command('verify')
  .description('Walks the hash chain of a buffer, offline; names the first row that was changed.')
  .argument('[buffer]', 'a buffer file; that of this host unless said')
  .option('--json', 'as JSON')
  .addHelpText('after', example('verify', 'verify /mnt/evidence/buffer.db --json'))
  .action(async (path: string | undefined, options: { json?: boolean }) => {
    const { verifyBuffer } = await import('./buffer/verify.ts')
    const file = path ?? join(settings().stateFolder, 'buffer.db')
    if (!existsSync(file)) throw new AgentError(`${file} is not there`)
    const result = verifyBuffer(file)
    const { describeVerdict } = await import('./cli/describe-verdict.ts')
    say(options.json ? JSON.stringify(result) : describeVerdict(file, result))
    process.exitCode = result.kind === 'whole' ? 0 : 1
  })

program
  .command('install')
  .description('Makes this program a service of this host, which has no package of it; again: upgrades it.')
  .option('--enroll <url token...>', 'enrols, too; the token `-` is read from standard input')
  .option('--root <folder>', 'prepares the image in this folder, and starts nothing', '/')
  .addHelpText('after', example('install --enroll https://controller.example:7802 TOKEN'))
  .action(async (options: { enroll?: string[]; root: string }) => {
    const { installHere } = await import('./cli/install-command.ts')
    const done = await installHere(settings().stateFolder, options, say)
    if (!done.ok) throw new AgentError(done.reason)
  })

program
  .command('uninstall')
  .description('Stops and removes what `install` made; keeps identity, buffer and quarantine.')
  .option('--purge', 'destroys those, too, after asking')
  .option('--yes', 'does not ask')
  .option('--root <folder>', 'the image in this folder', '/')
  .option('--check', 'only says whether this host may lose its agent: 0 it may, 3 it is isolated')
  .addHelpText('after', example('uninstall', 'uninstall --purge'))
  .action(async (options: { purge?: boolean; yes?: boolean; root: string; check?: boolean }) => {
    const { checkMayGo, uninstallHere } = await import('./cli/install-command.ts')
    if (options.check) {
      process.exitCode = checkMayGo(settings().stateFolder, say)
      return
    }
    const done = await uninstallHere(settings().stateFolder, options, say)
    if (!done.ok) throw new AgentError(done.reason)
  })

program
  .command('clean-kernel')
  .description('Removes what an agent that was killed left behind; an isolation in force stays.')
  .addHelpText('after', example('clean-kernel'))
  .action(async () => {
    const { cleanHere } = await import('./cli/install-command.ts')
    for (const line of await cleanHere(settings().stateFolder)) say(line)
  })

program
  .command('release')
  .description('Ends the isolation of this host with its break-glass code; works with and without the agent.')
  .requiredOption(
    '--code <code>',
    'the code, from `cordon host break-glass HOST`; `-` reads it from standard input',
  )
  .addHelpText('after', example('release --code -'))
  .action(async (options: { code: string }) => {
    const { releaseByCode } = await import('./cli/isolation.ts')
    say(await releaseByCode(settings(), options.code))
  })

program
  .command('restore-isolation')
  .description('Puts an isolation that was in force back before the network is there; for the unit at boot.')
  .addHelpText('after', example('restore-isolation'))
  .action(async () => {
    const { restoreAtBoot } = await import('./cli/isolation.ts')
    say(await restoreAtBoot(settings()))
  })

program.command('scan-worker', { hidden: true }).action(async () => {
  const { loadNative } = await import('./native/addon.ts')
  const { runScanWorker } = await import('./detect/scan-worker.ts')
  const { loadYaraAddon } = await import('./detect/yara-engine.ts')
  const native = loadNative()
  process.exitCode = runScanWorker({ yara: loadYaraAddon(), native: native.ok ? native.native : null })
})

async function main(): Promise<number> {
  // Whatever is made without a mode of its own, sockets too, is for its owner alone.
  process.umask(0o077)
  // Node would open an inspector at this signal, through which its sender could run anything in here.
  process.on('SIGUSR1', () => undefined)
  const platform = selectPlatform()
  if (!platform.ok) {
    process.stderr.write(`cordon-agent: ${platform.reason}\n`)
    return 1
  }
  try {
    await program.parseAsync()
    return Number(process.exitCode ?? 0)
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    const text = error instanceof AgentError ? error.message : (error as Error).stack
    process.stderr.write(`cordon-agent: ${text}\n`)
    return 1
  }
}

main().then((code) => {
  process.exitCode = code
})
