/** The commands around backups, joined to the program's command line by `main.ts`. */
import type { Command } from 'commander'
import { readPrivateFile } from '../../shared/node/sealed-file.ts'
import { printable } from '../cli/printable.ts'
import { makeBackup } from './backup.ts'
import { BackupError } from './backup-error.ts'
import { type Confirmed, confirmRestoration, type Review, reviewRestoration } from './confirm.ts'
import type { ControllerFolders, Progress } from './folders.ts'
import type { Manifest } from './manifest.ts'
import { readBackup } from './read-backup.ts'
import { restoreBackup } from './restore.ts'

const PASSPHRASE_CHARACTERS_MIN = 12
const PROGRESS_INTERVAL_MS = 100

export interface BackupCommandsOptions {
  readonly program: Command
  readonly stateFolder: () => string
  readonly foldersOf: (stateFolder: string) => ControllerFolders
  /** Typed on a terminal, twice when it is a new one; else read from standard input. */
  readonly readPassphrase: (twice: boolean) => Promise<string>
  readonly say: (line: string) => void
  readonly example: (...commands: readonly string[]) => string
  readonly version: string
}

interface PassphraseOption {
  readonly passphraseFile?: string
}

export function addBackupCommands(options: BackupCommandsOptions): void {
  addBackup(options)
  addRestore(options)
  addConfirm(options)
}

const PASSPHRASE_FLAGS = '--passphrase-file <file>'
const PASSPHRASE_SUMMARY =
  'file (mode 0600) with the backup’s passphrase; else it is asked for, or read from standard input'

function addBackup({
  program,
  stateFolder,
  foldersOf,
  say,
  example,
  version,
  ...options
}: BackupCommandsOptions) {
  const backup = program
    .command('backup')
    .description('Writes the controller’s databases and authority into one sealed file, while it runs.')
    .addHelpText(
      'after',
      example('backup make /mnt/controller.backup', 'backup verify /mnt/controller.backup'),
    )
  backup
    .command('make', { isDefault: true })
    .description('Makes a backup. The keys’ own passphrase and the root are never in it.')
    .argument('<file>', 'the file to make; one that is there is left alone')
    .option(PASSPHRASE_FLAGS, PASSPHRASE_SUMMARY)
    .option('--events', 'with the stored events: large')
    .option('--evidence', 'with the collected files: large')
    .addHelpText(
      'after',
      example('backup /mnt/controller.backup --events --passphrase-file /root/backup.pass'),
    )
    .action(async (file: string, given: PassphraseOption & { events?: boolean; evidence?: boolean }) => {
      const passphrase = await passphraseFor(given, () => options.readPassphrase(true))
      if (passphrase.length < PASSPHRASE_CHARACTERS_MIN) {
        throw new BackupError(`the passphrase is shorter than ${PASSPHRASE_CHARACTERS_MIN} characters`)
      }
      const interrupted = new AbortController()
      for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort())
      const made = await withProgress((progress) =>
        makeBackup({
          stateFolder: stateFolder(),
          folders: foldersOf(stateFolder()),
          file,
          passphrase,
          events: given.events ?? false,
          evidence: given.evidence ?? false,
          controllerVersion: version,
          nowMs: Date.now(),
          progress,
          signal: interrupted.signal,
        }),
      )
      say(`made ${file}, ${made.fileBytes} bytes`)
      tell(made.manifest, say)
    })
  backup
    .command('verify')
    .description('Reads a backup to its end and holds each member against the manifest.')
    .argument('<file>')
    .option(PASSPHRASE_FLAGS, PASSPHRASE_SUMMARY)
    .addHelpText('after', example('backup verify /mnt/controller.backup'))
    .action(async (file: string, given: PassphraseOption) => {
      const passphrase = await passphraseFor(given, () => options.readPassphrase(false))
      const manifest = await withProgress((progress) => readBackup({ file, passphrase, progress }))
      say(`${file} is whole`)
      tell(manifest, say)
    })
}

function addRestore({ program, say, example, ...options }: BackupCommandsOptions): void {
  program
    .command('restore')
    .description('Puts a backup into an empty folder. The controller issues nothing until `confirm-restore`.')
    .argument('<file>')
    .requiredOption('--into <folder>', 'the controller’s state folder: empty, or not there')
    .option(PASSPHRASE_FLAGS, PASSPHRASE_SUMMARY)
    .addHelpText('after', example('restore /mnt/controller.backup --into /var/lib/cordon-controller'))
    .action(async (file: string, given: PassphraseOption & { into: string }) => {
      const passphrase = await passphraseFor(given, () => options.readPassphrase(false))
      const { into } = given
      const manifest = await withProgress((progress) =>
        restoreBackup({ file, into, passphrase, nowMs: Date.now(), progress }),
      )
      say(`restored into ${into}`)
      tell(manifest, say)
      say(
        `next: put the passphrase of the issuers’ keys into ${into}/passphrase (mode 0600), it is in no backup;`,
      )
      say('      start the controller, let the agents come back, and run `cordon-controller confirm-restore`')
    })
}

function addConfirm({ program, stateFolder, foldersOf, say, example }: BackupCommandsOptions): void {
  program
    .command('confirm-restore')
    .description(
      'Shows what is to be looked at after a restore; with a name and a reason lets it issue again.',
    )
    .option('--by <name>', 'who confirms')
    .option('--reason <text>', 'why it is right to go on from this backup')
    .option('--rolled-back', 'the folder was put back by other means than `restore`')
    .addHelpText('after', example('confirm-restore', 'confirm-restore --by ada --reason "disk of 12 May"'))
    .action((given: { by?: string; reason?: string; rolledBack?: boolean }) => {
      const { state } = foldersOf(stateFolder())
      if (given.by === undefined && given.reason === undefined) {
        for (const line of reviewInWords(reviewRestoration(state))) say(line)
        return
      }
      if (!given.by || !given.reason) throw new BackupError('confirming needs --by NAME and --reason TEXT')
      const { by, reason, rolledBack = false } = given
      tellConfirmed(confirmRestoration(state, { by, reason, rolledBack, nowMs: Date.now() }), say)
    })
}

async function passphraseFor(given: PassphraseOption, ask: () => Promise<string>): Promise<string> {
  if (given.passphraseFile === undefined) return await ask()
  const text = readPrivateFile(given.passphraseFile)
  if (!text.ok) throw new BackupError(text.error.reason)
  return text.value.replace(/\r?\n$/, '')
}

/** On a terminal one line that changes; elsewhere nothing. */
async function withProgress<Value>(work: (progress: Progress) => Promise<Value>): Promise<Value> {
  const { stderr } = process
  if (stderr.isTTY !== true) return await work(() => undefined)
  let nextMs = 0
  try {
    return await work((what, done, of) => {
      if (performance.now() < nextMs) return
      nextMs = performance.now() + PROGRESS_INTERVAL_MS
      const share = of > 0 ? ` ${Math.floor((100 * done) / of)} %` : ''
      stderr.write(`\r\u001b[K${what}${share}`)
    })
  } finally {
    stderr.write('\r\u001b[K')
  }
}

function tell(manifest: Manifest, say: BackupCommandsOptions['say']): void {
  const { createdMs, controllerVersion, epoch, keysetVersion, auditEntries, auditHead, members } = manifest
  say(`taken         ${new Date(createdMs).toISOString()} by version ${controllerVersion}`)
  say(`fleet         ${manifest.fleet}, epoch ${epoch}, keyset ${keysetVersion}`)
  say(`audit log     ${auditEntries} entries, head ${auditHead}`)
  say(
    `holds         ${members.length} files${manifest.events ? '' : ', no events'}${manifest.evidence ? '' : ', no evidence'}`,
  )
}

function reviewInWords(review: Review): readonly string[] {
  const { restoration } = review
  if (restoration === undefined) return ['this controller never came out of a backup']
  const at = (ms: number | null) => (ms === null ? 'by hand' : new Date(ms).toISOString())
  const begin = [`backup of     ${at(restoration.backup_ms)}`, `restored      ${at(restoration.restored_ms)}`]
  if (restoration.confirmed_ms !== null) {
    return [
      ...begin,
      `confirmed     ${at(restoration.confirmed_ms)} by ${printable(restoration.confirmed_by ?? '')}`,
    ]
  }
  return [
    ...begin,
    `audit log     ${review.auditEntries} entries, head ${review.auditHead}`,
    '              hold the head that `restore` told against a copy of the log that is kept elsewhere',
    `waiting       ${review.waiting} actions that were not sent; confirming cancels them`,
    'not known     what was revoked, cancelled or forbidden after the backup: revoke it again',
    `connected since (${review.hosts.length}): is each of them still to be trusted?`,
    ...review.hosts.map((host) => `  ${host.agentId}  ${at(host.lastSeenMs)}  ${printable(host.hostName)}`),
    `what agents showed that the backup does not know (${review.alerts.length}):`,
    ...review.alerts.map((one) => `  ${one.at}  ${one.action}  ${one.subject}  ${printable(one.detail)}`),
    'to go on: cordon-controller confirm-restore --by NAME --reason TEXT',
  ]
}

function tellConfirmed({ epoch, cancelled }: Confirmed, say: BackupCommandsOptions['say']): void {
  say(
    `confirmed: epoch ${epoch} begins, no command of an earlier one is taken; ${cancelled} waiting actions were cancelled`,
  )
}
