/**
 * The keyset in force: who may sign commands. Only one signed by the offline root and newer than the last is
 * taken; what is served and pushed are the exact bytes that the root signed.
 */
import type { KeyObject } from 'node:crypto'
import { type SignedKeyset, verifyKeyset } from '../../shared/node/keyset.ts'
import type { Keyset } from '../../shared/protocol/commands.ts'
import type { ControllerMessage } from '../../shared/protocol/messages.ts'
import type { AuditLog, KeysetService } from '../api/services.ts'
import type { State } from '../state/state.ts'

export interface KeysetDependencies {
  readonly state: State
  /** Public key in the root's certificate. */
  readonly rootKey: KeyObject
  readonly fleet: string
  /** The keyset the fleet was made with; taken when the database has none, or an older one. */
  readonly initial: SignedKeyset
  /** To every connected agent. */
  readonly broadcast: (message: ControllerMessage) => void
  /** After the broadcast. */
  readonly changed: () => void
  readonly audit: AuditLog
  readonly nowMs: () => number
}

export interface Keysets extends KeysetService {
  keyset(): Keyset
  /** The message that carries the keyset in force to an agent. */
  message(): Extract<ControllerMessage, { kind: 'keyset' }>
}

/** Throws when what is stored was not signed by the root: somebody changed the database. */
export function createKeysets(dependencies: KeysetDependencies): Keysets {
  const { state, rootKey, fleet, broadcast, audit, nowMs } = dependencies

  const load = (): { signed: SignedKeyset; keyset: Keyset } | undefined => {
    const row = state.keysets.current()
    if (row === undefined) return undefined
    const signed = {
      keyset: row.bytes.toString('base64'),
      rootSignature: row.root_signature.toString('base64'),
    }
    // Not by the clock: an expired keyset still has to be shown, and to say whom to ask for a newer one.
    const result = verifyKeyset(signed, { rootKey, fleet, versionMin: row.version, nowMs: null })
    if (!result.ok) throw new Error(`the stored keyset cannot be trusted: ${result.failure.reason}`)
    return { signed, keyset: result.keyset }
  }

  const save = (signed: SignedKeyset, { version }: Keyset, by: string) =>
    state.run(() => {
      state.keysets.insert({
        version,
        bytes: Buffer.from(signed.keyset, 'base64'),
        root_signature: Buffer.from(signed.rootSignature, 'base64'),
        accepted_ms: nowMs(),
        by,
      })
      audit.record(by, 'keyset.replace', `version ${version}`, 'Signed by the root.')
    })

  let current = load()
  const versionMin = current === undefined ? 1 : current.keyset.version
  const initial = verifyKeyset(dependencies.initial, { rootKey, fleet, versionMin, nowMs: null })
  if (initial.ok && initial.keyset.version > (current?.keyset.version ?? 0)) {
    save(dependencies.initial, initial.keyset, 'setup')
    current = load()
  }
  if (current === undefined) {
    throw new Error(`there is no keyset: ${initial.ok ? 'none was given' : initial.failure.reason}`)
  }
  let inForce = current

  const message = (): Extract<ControllerMessage, { kind: 'keyset' }> => ({
    kind: 'keyset',
    ...inForce.signed,
  })

  return {
    keyset: () => inForce.keyset,
    message,
    current: () => ({ version: inForce.keyset.version, ...inForce.signed }),
    replace(keyset, rootSignature, by) {
      const signed = { keyset, rootSignature }
      const versionNext = inForce.keyset.version + 1
      const result = verifyKeyset(signed, { rootKey, fleet, versionMin: versionNext, nowMs: nowMs() })
      if (!result.ok) {
        audit.record(by, 'keyset.refused', `version after ${inForce.keyset.version}`, result.failure.reason)
        return { ok: false, error: { kind: 'invalid', reason: result.failure.reason } }
      }
      save(signed, result.keyset, by)
      inForce = { signed, keyset: result.keyset }
      broadcast(message())
      dependencies.changed()
      return { ok: true, value: { version: result.keyset.version } }
    },
  }
}
