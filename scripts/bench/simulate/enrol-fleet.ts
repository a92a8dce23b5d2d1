/**
 * Enrols many made-up hosts with a controller that does not run: the same tokens, requests and certificates as
 * over the enrolment listener, without its limit of requests per minute.
 */
import { openControllerAuthority, paths } from '../../../controller/ceremony.ts'
import { CONTROLLER_SETTINGS } from '../../../controller/config/settings.ts'
import { openPkiDatabase } from '../../../controller/pki/database.ts'
import { createEnrolment } from '../../../controller/pki/enrolment.ts'
import { createEnrolmentTokens } from '../../../controller/pki/enrolment-tokens.ts'
import { createHolds } from '../../../controller/pki/holds.ts'
import { createRegistry } from '../../../controller/pki/registry.ts'
import { createCertificateRequest, generateAgentKey } from '../../../shared/node/certificate-request.ts'
import { loadSettings } from '../../../shared/node/settings.ts'
import { PROTOCOL_VERSION } from '../../../shared/protocol/version.ts'
import type { FleetMember } from './simulated-agent.ts'

export interface Fleet {
  readonly members: readonly FleetMember[]
  readonly gatewayUrl: string
  readonly rootPem: string
  readonly serverName: string
}

const TOKEN_TTL_MS = 3_600_000

/** `environment` is the controller's. Throws when a host is not let in. */
export async function enrolFleet(
  environment: Readonly<Record<string, string>>,
  gatewayUrl: string,
  count: number,
): Promise<Fleet> {
  const loaded = loadSettings(CONTROLLER_SETTINGS, null, environment)
  if (!loaded.ok) throw new Error(loaded.problems.join('\n'))
  const { authority, keysets } = await openControllerAuthority(loaded.settings)
  const database = openPkiDatabase(paths(loaded.settings.stateFolder).pki)
  try {
    const alert = (what: { readonly reason: string }) => {
      throw new Error(what.reason)
    }
    const holds = createHolds(database, Date.now)
    const registry = createRegistry({ database, clock: Date.now, alert, holds })
    const enrolment = createEnrolment({
      database,
      authority,
      registry,
      tokens: createEnrolmentTokens(database, Date.now),
      keyset: keysets,
      enrolmentUrl: 'https://localhost',
      gatewayUrl,
      clock: Date.now,
      alert,
      enrolled: () => undefined,
    })
    const members = Array.from({ length: count }, (_, number): FleetMember => {
      const key = generateAgentKey()
      const [tokenId = '', tokenSecret = ''] = enrolment.createToken('bench', TOKEN_TTL_MS).token.split('.')
      const enrolled = enrolment.enrol({
        protocolVersion: PROTOCOL_VERSION,
        tokenId,
        tokenSecret,
        csrPem: createCertificateRequest(key),
        inventory: INVENTORY,
      })
      if (!enrolled.ok) throw new Error(`host ${number}: ${enrolled.error.reason}`)
      const { agentId, certificateChainPem } = enrolled.value
      return { agentId, keyPem: key.export({ format: 'pem', type: 'pkcs8' }).toString(), certificateChainPem }
    })
    return { members, gatewayUrl, rootPem: authority.rootPem, serverName: authority.serverName }
  } finally {
    database.close()
  }
}

const INVENTORY = {
  hostName: 'simulated',
  operatingSystem: 'simulated',
  operatingSystemVersion: '1',
  kernel: '6.1.0',
  architecture: 'x64',
  cpuModel: 'simulated',
  cpuCount: 1,
  memoryBytes: 0,
  addresses: [],
}
