/** Collected files as they are served: what each is, and the bytes of those that are whole. */
import type { FileOffer } from '../../shared/protocol/messages.ts'
import type { AuditLog, EvidenceService } from '../api/services.ts'
import type { EvidenceRow } from '../state/evidence-table.ts'
import type { State } from '../state/state.ts'
import { timestamp } from '../state/timestamp.ts'
import type { EvidenceFiles } from './evidence-files.ts'
import type { Evidence } from './record.ts'

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
        bytes: row.size_bytes - offset,
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
