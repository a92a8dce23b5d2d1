/**
 * What a controller that came out of a backup does not do until a person has confirmed it. It takes telemetry;
 * it issues no command, certificate, token or keyset, because it does not know what was issued, revoked or
 * cancelled after the backup. Looked up in the database each time: confirming is done by another process.
 */
import { existsSync } from 'node:fs'
import type { Logger } from '../../shared/node/logger.ts'
import type { Alerts } from '../audit/alerts.ts'
import type { Authorise, Hello } from '../gateway/ports.ts'
import type { Authority } from '../pki/authority.ts'
import type { Enrolment } from '../pki/enrolment.ts'
import { failed } from '../pki/outcome.ts'
import { openState, type State } from '../state/state.ts'

export interface IssuingGuard {
  /** Why nothing is issued, for a person; null when it is. */
  refusal(): string | null
  /** Issues no certificate to an agent, whoever asks; its own server certificate it goes on to renew. */
  authority(authority: Authority): Authority
  /** The same for those who enrol and renew, in words of their own. */
  enrolment(enrolment: Enrolment): Enrolment
  /** Delivery sees no live session, so whatever waits is not sent. */
  nonceOf(nonceOf: (agentId: string) => string | undefined): (agentId: string) => string | undefined
  /** Tells a certificate that the root vouches for and the backup does not know. */
  authorise(authorise: Authorise): Authorise
  /** Tells of an agent that knows a newer keyset than this controller. */
  hello(agentId: string, hello: Pick<Hello, 'keysetVersion'>, keysetVersion: number): void
}

export function createIssuingGuard(dependencies: {
  readonly state: Pick<State, 'restoration'>
  readonly alerts: Alerts
  readonly log: Pick<Logger, 'warn'>
}): IssuingGuard {
  const { state, alerts, log } = dependencies
  const refusal = () => refusalIn(state)
  const first = refusal()
  if (first !== null) log.warn({}, first)
  return {
    refusal,
    authority: (authority) => ({
      ...authority,
      issueAgentCertificate(...args) {
        const reason = refusal()
        return reason === null ? authority.issueAgentCertificate(...args) : failed('requestInvalid', reason)
      },
    }),
    enrolment(enrolment) {
      const guarded =
        <Args extends unknown[], Answer>(issue: (...args: Args) => Answer) =>
        (...args: Args) => {
          const reason = refusal()
          return reason === null ? issue(...args) : failed('notConfirmed', reason)
        }
      return {
        // The API refuses before it comes here; this is the second lock.
        createToken(...args) {
          const reason = refusal()
          if (reason !== null) throw new Error(reason)
          return enrolment.createToken(...args)
        },
        enrol: guarded(enrolment.enrol),
        renew: guarded(enrolment.renew),
      }
    },
    nonceOf: (nonceOf) => (agentId) => (refusal() === null ? nonceOf(agentId) : undefined),
    authorise: (authorise) => (fingerprint, agentId) => {
      const standing = authorise(fingerprint, agentId)
      if (standing === 'unknown' && state.restoration.get() !== undefined) {
        alerts.raise(
          'unknownSinceRestore',
          agentId,
          `The root vouches for certificate ${fingerprint}, which the backup does not know: enrolled or renewed ` +
            'after it, or a backup from before. Look at the host; a new enrolment with a token brings it back.',
        )
      }
      return standing
    },
    hello(agentId, { keysetVersion }, own) {
      if (keysetVersion <= own) return
      alerts.raise(
        'controllerBehind',
        agentId,
        `The agent has keyset ${keysetVersion}, this controller ${own}: hand in the newer one, which the root signed.`,
      )
    },
  }
}

/** The same for the database at a path, by another program than the controller. */
export function refusalAt(statePath: string): string | null {
  if (!existsSync(statePath)) return null
  const state = openState(statePath)
  try {
    return refusalIn(state)
  } finally {
    state.close()
  }
}

/** Why this database's controller issues nothing; null when it does. */
export function refusalIn(state: Pick<State, 'restoration'>): string | null {
  const row = state.restoration.get()
  if (row === undefined || row.confirmed_ms !== null) return null
  const of = new Date(row.backup_ms).toISOString()
  return `this controller was restored from the backup of ${of} and issues nothing until that is confirmed: \`cordon-controller confirm-restore\``
}
