/**
 * Hosts that may not go on until a person has looked: identities that two hosts use, and certificates that ran
 * out while their host was away. Joins what the gateway and the certificates' room find with alert and audit.
 */
import type { Change, HostStandingService } from '../api/services.ts'
import type { Alerts } from '../audit/alerts.ts'
import type { Admit, Goodbye, Twin } from '../gateway/ports.ts'
import type { ExpiredRenewals, PendingRenewal } from '../pki/expired-renewal.ts'
import type { Holds } from '../pki/holds.ts'

const HELD_RETRY_AFTER_MS = 60_000

export interface HostStanding extends HostStandingService {
  readonly admit: Admit
  onTwins(agentId: string, twins: readonly Twin[], how: string): void
  /** Two histories of one stream go on side by side. */
  onForked(agentId: string, detail: string): void
  onRenewalAsked(renewal: PendingRenewal): void
}

export function createHostStanding(dependencies: {
  readonly holds: Holds
  /** Asked late: the renewals' room calls back into this one. */
  readonly renewals: () => ExpiredRenewals
  readonly disconnect: (agentId: string, code: Goodbye['code'], reason: string, retryAfterMs: number) => void
  readonly nameOf: (agentId: string) => string
  readonly audit: { record(by: string, action: string, subject: string, detail: string): void }
  readonly alerts: Alerts
  readonly announce: (change: Change) => void
}): HostStanding {
  const { holds, renewals, disconnect, nameOf, audit, alerts, announce } = dependencies
  const changed = (agentId: string) => announce({ kind: 'host', id: agentId })

  holds.onHeld((agentId, reason) => {
    // First of all: nothing of either may be stored any more.
    disconnect(agentId, 'held', `two hosts use this agent’s identity: ${reason}`, HELD_RETRY_AFTER_MS)
    alerts.raise('identityHeld', agentId, `${reason}; both are held until one is readmitted`)
    changed(agentId)
  })

  return {
    admit(agentId, hello, peer, address) {
      const admission = holds.admit(agentId, hello.bootId)
      if (admission.kind === 'held') {
        const { certificateFingerprint } = peer
        holds.note(agentId, {
          bootId: hello.bootId,
          certificateFingerprint,
          hostName: hello.inventory.hostName,
          address,
        })
        changed(agentId)
      }
      return admission
    },
    onTwins(agentId, twins, how) {
      const who = twins.map(({ hostName, address, bootId }) => `${hostName} at ${address} (boot ${bootId})`)
      alerts.raise('identityUsedTwice', agentId, `${how}: ${who.join(' and ')}`)
      holds.hold(agentId, how)
      for (const twin of twins) holds.note(agentId, twin)
    },
    onForked(agentId, detail) {
      alerts.raise('historyForked', agentId, detail)
      holds.hold(agentId, 'two histories of its events go on side by side')
    },
    onRenewalAsked({ agentId, address, expiredAtMs }) {
      const expired = new Date(expiredAtMs).toISOString()
      alerts.raise('renewalPending', agentId, `its certificate ran out at ${expired}; asked from ${address}`)
      changed(agentId)
    },
    contenders: (agentId) =>
      holds.contenders(agentId).map(({ seenAtMs, ...contender }) => ({
        ...contender,
        seenAt: new Date(seenAtMs).toISOString(),
      })),
    readmit(agentId, bootId, by, reason) {
      const outcome = holds.readmit(agentId, bootId)
      if (outcome !== 'readmitted') return outcome
      const whom = bootId === null ? 'whoever comes' : `the host of boot ${bootId}`
      audit.record(by, 'host.readmit', agentId, `${whom}: ${reason}`)
      changed(agentId)
      return outcome
    },
    renewals: () =>
      renewals()
        .pending()
        .map(({ agentId, address, expiredAtMs, askedAtMs, keyFingerprint }) => ({
          agentId,
          hostName: nameOf(agentId),
          address,
          expiredAt: new Date(expiredAtMs).toISOString(),
          askedAt: new Date(askedAtMs).toISOString(),
          keyFingerprint,
        })),
    approveRenewal(agentId, by, reason) {
      const outcome = renewals().approve(agentId)
      if (!outcome.ok) return { ok: false, reason: outcome.error.reason }
      audit.record(by, 'certificate.approve', agentId, reason)
      changed(agentId)
      return { ok: true }
    },
  }
}
