/** Whether a file that an agent offers is one that it was asked for. Reads the state and changes nothing. */
import type { EvidenceFileTarget } from '../../shared/protocol/commands.ts'
import type { ControllerMessage, FileOffer } from '../../shared/protocol/messages.ts'
import { FINAL_STATES } from '../dispatch/action.ts'
import type { State } from '../state/state.ts'

export interface Refusal {
  readonly code: Extract<ControllerMessage, { kind: 'fileRefused' }>['code']
  readonly reason: string
  /** Set when no agent does this that works as it should. */
  readonly alert?: string
}

export type OfferCheck =
  | { readonly kind: 'wanted'; readonly hostName: string }
  /** It is here already. */
  | { readonly kind: 'complete' }
  | ({ readonly kind: 'refused' } & Refusal)

export function refusalOf(
  state: Pick<State, 'actions' | 'evidence'>,
  agentId: string,
  offer: FileOffer,
  fileBytesMax: number,
): OfferCheck {
  const action = state.actions.get(offer.commandId)
  if (
    action === undefined ||
    action.agent_id !== agentId ||
    action.action !== 'collectFile' ||
    action.deliveries === 0
  ) {
    return refused('unassigned', 'nobody asked this agent for a file under this command', 'unassignedUpload')
  }
  const target = JSON.parse(action.target) as EvidenceFileTarget
  if (target.path !== offer.path || target.pathBytes !== offer.pathBytes) {
    return refused('otherOffer', 'the file offered is not the one that was asked for', 'otherFileOffered')
  }
  const known = state.evidence.get(offer.commandId)
  if (known && (known.sha256 !== offer.sha256 || known.size_bytes !== offer.sizeBytes)) {
    return refused('otherOffer', 'another size or hash than was offered before', 'otherFileOffered')
  }
  if (known?.state === 'complete') return { kind: 'complete' }
  if (known?.state === 'failed') return refused('ended', known.reason ?? 'it failed before')
  if (FINAL_STATES.has(action.state)) return refused('ended', `the command has ended as ${action.state}`)
  const { bytesMax } = JSON.parse(action.args) as { bytesMax: number }
  if (offer.sizeBytes > bytesMax) {
    const reason = `${offer.sizeBytes} bytes are offered, and at most ${bytesMax} were asked for`
    return refused('tooLarge', reason, 'moreThanAsked')
  }
  if (offer.sizeBytes > fileBytesMax) {
    const reason = `the file has ${offer.sizeBytes} bytes and the controller's evidenceFileBytesMax is ${fileBytesMax}; raise that setting to take it`
    return refused('tooLarge', reason)
  }
  return { kind: 'wanted', hostName: action.host_name }
}

export function roomProblem(room: {
  readonly sizeBytes: number
  readonly heldBytes: number
  readonly bytesMax: number
  /** Beyond what stays free for everything else. */
  readonly freeBytes: number
}): Refusal | null {
  const { sizeBytes, heldBytes, bytesMax, freeBytes } = room
  if (heldBytes + sizeBytes > bytesMax) {
    const reason = `the controller holds ${heldBytes} bytes of evidence, the file has ${sizeBytes} and evidenceBytesMax is ${bytesMax}; raise that setting to take it`
    return { code: 'noRoom', reason }
  }
  if (sizeBytes <= freeBytes) return null
  const reason = `the file has ${sizeBytes} bytes, and the controller's disk has no room for it; make room and ask again`
  return { code: 'noRoom', reason }
}

function refused(code: Refusal['code'], reason: string, alert?: string): OfferCheck {
  return { kind: 'refused', code, reason, ...(alert === undefined ? {} : { alert }) }
}
