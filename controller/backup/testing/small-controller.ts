/** A controller's folder with something in it, for tests of backups: an agent, users, events, an audit log. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createAuditLog } from '../../audit/audit-log.ts'
import { createOperators } from '../../operators/operators.ts'
import { type Authority, createAuthority } from '../../pki/authority.ts'
import { openPkiDatabase } from '../../pki/database.ts'
import { createEnrolmentTokens } from '../../pki/enrolment-tokens.ts'
import { openState } from '../../state/state.ts'
import type { ControllerFolders } from '../folders.ts'

export const CHEAP_SCRYPT = 2 ** 10
export const PASSPHRASE = 'a passphrase for tests'

export interface SmallController extends Disposable {
  readonly folder: string
  readonly stateFolder: string
  readonly folders: ControllerFolders
  readonly authority: Authority
  /** Opens the keys at rest; never in a backup. */
  readonly keyPassphrase: string
}

export function foldersIn(stateFolder: string): ControllerFolders {
  return {
    authority: join(stateFolder, 'authority'),
    state: join(stateFolder, 'state.db'),
    pki: join(stateFolder, 'pki.db'),
    operators: join(stateFolder, 'operators.db'),
    events: join(stateFolder, 'events'),
  }
}

export async function makeSmallController(): Promise<SmallController> {
  const folder = mkdtempSync(join(tmpdir(), 'cordon-backup-'))
  const stateFolder = join(folder, 'controller')
  mkdirSync(stateFolder, { mode: 0o700 })
  const folders = foldersIn(stateFolder)
  const keyPassphrase = 'the passphrase of the issuers'
  const authority = await createAuthority(folders.authority, {
    passphrase: keyPassphrase,
    rootPassphrase: 'the passphrase of the root',
    rootKeyBits: 2_048,
    issuerKeyBits: 2_048,
    scryptCost: CHEAP_SCRYPT,
  })
  if (!authority.ok) throw new Error(authority.error.reason)
  fillState(folders.state)
  const pki = openPkiDatabase(folders.pki)
  createEnrolmentTokens(pki, Date.now).create('ada', 'default', 3_600_000)
  pki.close()
  const operators = createOperators({ path: folders.operators, passwordCost: CHEAP_SCRYPT })
  await operators.createUser('ada', 'admin', 'a long enough password')
  await operators.logIn({ name: 'ada', password: 'a long enough password', address: '::1', kind: 'bearer' })
  operators.close()
  return {
    folder,
    stateFolder,
    folders,
    authority: authority.value,
    keyPassphrase,
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  }
}

function fillState(path: string): void {
  const state = openState(path)
  const audit = createAuditLog(state, Date.now)
  for (const subject of ['one', 'two', 'three']) audit.record('ada', 'test', subject, 'detail')
  state.counters.nextDelivery('agent')
  state.consumer.advance('detection', '20261124T10-0000000000000042')
  state.close()
}
