/** Who has signed an intent, and whether that is enough under the keyset in force. Pure. */
import { verifyBytes } from '../../shared/node/signing.ts'
import type { CommandClass, Keyset } from '../../shared/protocol/commands.ts'
import type { Signature } from '../../shared/protocol/messages.ts'

export type SignerCheck =
  | { readonly ok: true; readonly operator: string }
  | { readonly ok: false; readonly reason: string }

/** Verifies first; only then is anything said about who it was. */
export function checkSigner(
  intentBytes: Uint8Array,
  commandClass: CommandClass,
  signature: Signature,
  keyset: Keyset,
): SignerCheck {
  const operator = keyset.operators.find(({ keyId }) => keyId === signature.keyId)
  if (operator === undefined) return { ok: false, reason: 'the key is not in the keyset in force' }
  if (!verifyBytes('intent', intentBytes, signature, operator.publicKey)) {
    return { ok: false, reason: 'the signature does not fit the stored bytes of the intent' }
  }
  if (commandClass === 'R' || !operator.classes.includes(commandClass)) {
    return { ok: false, reason: `the key of ${operator.name} may not sign class ${commandClass}` }
  }
  return { ok: true, operator: operator.name }
}

export interface Standing {
  /** Signatures by keys that still count. Agents refuse an intent with any other. */
  readonly signatures: readonly Signature[]
  /** Distinct people, however many keys each has. */
  readonly operators: ReadonlySet<string>
  readonly needed: number
}

/** What stored signatures are worth under this keyset: a key taken out of it signs nothing any more. */
export function standingOf(
  commandClass: CommandClass,
  signed: readonly { readonly key_id: string; readonly signature: string }[],
  keyset: Keyset,
): Standing {
  const signatures: Signature[] = []
  const operators = new Set<string>()
  for (const { key_id: keyId, signature } of signed) {
    const operator = keyset.operators.find((candidate) => candidate.keyId === keyId)
    if (operator === undefined || commandClass === 'R' || !operator.classes.includes(commandClass)) continue
    signatures.push({ keyId, signature })
    operators.add(operator.name)
  }
  const threshold = commandClass === 'R' ? 0 : keyset.thresholds[commandClass]
  return { signatures, operators, needed: Math.max(0, threshold - operators.size) }
}
