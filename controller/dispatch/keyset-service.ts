/**
 * Replaces the keyset in force, on the record: who may sign commands changes only by the offline root's
 * signature, and every connected agent is told before anything is sent under the new one.
 */
import type { SignedKeyset } from '../../shared/node/keyset.ts'
import type { ControllerMessage } from '../../shared/protocol/messages.ts'
import type { AuditLog, KeysetService, Outcome } from '../api/services.ts'

/** Where the keyset is kept and verified. */
export interface KeysetKeeper {
  current(): SignedKeyset & { readonly version: number }
  /** Takes only a newer keyset that the root signed. */
  replace(
    signed: SignedKeyset,
  ): Outcome<{ readonly version: number }, { readonly kind: 'invalid'; readonly reason: string }>
}

export interface KeysetDependencies {
  readonly keeper: KeysetKeeper
  /** To every connected agent. */
  readonly broadcast: (message: ControllerMessage) => void
  /** After the broadcast. */
  readonly changed: () => void
  readonly audit: AuditLog
}

export function createKeysetService(dependencies: KeysetDependencies): KeysetService {
  const { keeper, broadcast, changed, audit } = dependencies
  return {
    current: () => keeper.current(),
    replace(keyset, rootSignature, by) {
      const before = keeper.current().version
      const result = keeper.replace({ keyset, rootSignature })
      if (!result.ok) {
        const { reason } = result.error
        audit.record(by, 'keyset.refused', `after version ${before}`, reason)
        return { ok: false, error: { kind: 'invalid', reason } }
      }
      const { version } = result.value
      audit.record(by, 'keyset.replace', `version ${version}`, `Signed by the root; before: ${before}.`)
      broadcast({ kind: 'keyset', keyset, rootSignature })
      changed()
      return { ok: true, value: { version } }
    },
  }
}
