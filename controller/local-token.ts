/** Enrolment tokens for whoever may read the controller's state folder, such as a launcher on the same host. */
import { openControllerAuthority, paths } from './ceremony.ts'
import type { ControllerSettings } from './config/settings.ts'
import { openPkiDatabase } from './pki/database.ts'
import { createEnrolmentTokens } from './pki/enrolment-tokens.ts'

/** `<id>.<secret>.<root pin>`; the running controller sees it at once, both share the database. */
export async function createLocalToken(settings: ControllerSettings, ttlMs: number): Promise<string> {
  const { authority } = await openControllerAuthority(settings)
  const database = openPkiDatabase(paths(settings.stateFolder).pki)
  try {
    const made = createEnrolmentTokens(database, Date.now).create('local', 'default', ttlMs)
    return `${made.id}.${made.secret}.${authority.rootFingerprint}`
  } finally {
    database.close()
  }
}
