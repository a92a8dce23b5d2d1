/** Enrolment as it is typed on a host, alone or with an installation. */
import { mkdirSync, readFileSync } from 'node:fs'
import { collectInventory } from '../health/inventory.ts'
import { enrol } from '../identity/enrol.ts'

export type HostEnrolment =
  | { readonly ok: true; readonly said: string }
  | { readonly ok: false; readonly reason: string }

/** `given`: the token; `-` reads it from standard input. */
export async function enrolHost(stateFolder: string, url: string, given: string): Promise<HostEnrolment> {
  // A command line can be read by every user of the host, and is told to controllers.
  const token = given === '-' ? readFileSync(0, 'utf8').trim() : given
  mkdirSync(stateFolder, { recursive: true, mode: 0o700 })
  const result = await enrol({ url, token, folder: stateFolder, inventory: await collectInventory() })
  // TLS ends its own words with line ends.
  if (!result.ok) return { ok: false, reason: `${result.error.reason.trim()}\n${result.error.mend}` }
  const { identity } = result
  const expires = new Date(identity.certificateExpiresAtMs()).toISOString()
  const said = `enrolled as agent ${identity.agentId} of fleet ${identity.fleet}; certificate until ${expires}`
  return { ok: true, said }
}
