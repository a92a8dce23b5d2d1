/** Collected files as they are served: what each is, and the bytes of those that are whole. */
import type { Readable } from 'node:stream'
import Type, { type Static } from 'typebox'
import { Timestamp } from '../../shared/events/event.ts'
import { AGENT_MESSAGES, type FileOffer } from '../../shared/protocol/messages.ts'
import { oneOf } from '../../shared/protocol/one-of.ts'
import type { AuditLog } from '../api/services.ts'
import type { EvidenceRow } from '../state/evidence-table.ts'
import type { State } from '../state/state.ts'
import { timestamp } from '../state/timestamp.ts'
import type { EvidenceFiles } from './evidence-files.ts'

const { kind: _kind, commandId: _commandId, copiedMs: _copiedMs, ...told } = AGENT_MESSAGES.fileOffer.properties

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
  readonly sizeBytes: number
  /** From the offset that was asked for. */
  open(): Readable
}

export interface EvidenceService {
  /** Newest first. */
  list(filter: { readonly agentId?: string; readonly limit: number }): readonly Evidence[]
  get(id: string): Evidence | undefined
  /** Writes down who takes it away; undefined when there is no such whole file, or it ends before `offset`. */
  download(id: string, offset: number, by: string): EvidenceDownload | undefined
}

export function createEvidenceService(dependencies: {
  readonly state: State
  readonly files: EvidenceFiles
  readonly audit: AuditLog
}): EvidenceService {
  const { state, files, audit } = dependencies
  return {
    list: ({ limit, ...filter }) => state.evidence.list(filter, limit).map(evidenceOf),
    get(id) {
      const row = state.evidence.get(id)
      return row && evidenceOf(row)
    },
    download(id, offset, by) {
      const row = state.evidence.get(id)
      if (row?.state !== 'complete' || offset > row.size_bytes || !files.has(row.sha256)) return undefined
      const from = offset === 0 ? '' : ` from byte ${offset} on`
      audit.record(by, 'evidence.download', id, `${row.path} of ${row.host_name}, ${row.sha256}${from}`)
      return {
        id,
        sha256: row.sha256,
        sizeBytes: row.size_bytes,
        open: () => files.read(row.sha256, offset),
      }
    },
  }
}

function evidenceOf(row: EvidenceRow): Evidence {
  const { kind: _k, commandId: _c, copiedMs, ...offer } = JSON.parse(row.offer) as FileOffer
  return {
    id: row.command_id,
    agentId: row.agent_id,
    hostName: row.host_name,
    state: row.state,
    receivedBytes: row.received_bytes,
    ...offer,
    copiedAt: toldTime(copiedMs),
    offeredAt: timestamp(row.offered_ms),
    collectedAt: row.collected_ms === null ? null : timestamp(row.collected_ms),
    reason: row.reason,
  }
}

const YEAR_10000_MS = Date.UTC(10_000, 0)

/** An agent's clock may say anything; what does not fit a timestamp is shown as the beginning of time. */
function toldTime(ms: number): string {
  return timestamp(ms < YEAR_10000_MS ? ms : 0)
}
