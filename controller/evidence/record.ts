/** Collected files as they are served. */
import type { Readable } from 'node:stream'
import Type, { type Static } from 'typebox'
import { Timestamp } from '../../shared/events/fields.ts'
import { AGENT_MESSAGES } from '../../shared/protocol/messages.ts'
import { oneOf } from '../../shared/protocol/one-of.ts'

const {
  kind: _kind,
  commandId: _commandId,
  copiedMs: _copiedMs,
  ...told
} = AGENT_MESSAGES.fileOffer.properties

/** Size, times and owner are as the agent told them when it copied the file; the hash was measured here, too. */
export const Evidence = Type.Object(
  {
    /** The action that collected it. */
    id: Type.String({ pattern: '^[0-9a-f]{32}$' }),
    agentId: Type.String({ pattern: '^[0-9a-f]{32}$' }),
    hostName: Type.String({ maxLength: 256 }),
    state: oneOf(['receiving', 'complete', 'failed']),
    receivedBytes: Type.Integer({ minimum: 0 }),
    ...told,
    copiedAt: Timestamp,
    offeredAt: Timestamp,
    collectedAt: Type.Union([Timestamp, Type.Null()]),
    /** Why it failed. */
    reason: Type.Union([Type.String({ maxLength: 512 }), Type.Null()]),
  },
  { additionalProperties: false },
)
export type Evidence = Static<typeof Evidence>

export interface EvidenceDownload {
  readonly id: string
  readonly sha256: string
  /** From the offset that was asked for to the end. */
  readonly bytes: number
  open(): Readable
}
