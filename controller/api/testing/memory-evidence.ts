/** Collected files for tests of API and CLI: one that is whole, of a hostile name, and one that is on its way. */
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import type { Evidence } from '../../evidence/record.ts'
import type { AuditLog, EvidenceService } from '../services.ts'
import { AGENT_ID, AT } from './fixtures.ts'

export const EVIDENCE_ID = 'e'.repeat(32)
export const COMING_ID = 'c'.repeat(32)
export const EVIDENCE_CONTENT = Buffer.from(Array.from({ length: 300_000 }, (_, index) => index % 251))

const WHOLE: Evidence = {
  id: EVIDENCE_ID,
  agentId: AGENT_ID,
  hostName: 'web-1',
  state: 'complete',
  receivedBytes: EVIDENCE_CONTENT.length,
  path: '/tmp/../../etc/"x"\r\nset-cookie: a=b',
  pathBytes: null,
  sizeBytes: EVIDENCE_CONTENT.length,
  sha256: createHash('sha256').update(EVIDENCE_CONTENT).digest('hex'),
  device: '1',
  inode: '2',
  mode: 0o100600,
  userId: 0,
  groupId: 0,
  links: 1,
  accessedNs: '1',
  modifiedNs: '2',
  changedNs: '3',
  bornNs: '4',
  changedWhileRead: false,
  copiedAt: AT,
  offeredAt: AT,
  collectedAt: AT,
  reason: null,
}
const COMING: Evidence = {
  ...WHOLE,
  id: COMING_ID,
  path: '/var/log/large',
  state: 'receiving',
  receivedBytes: 1_000,
  collectedAt: null,
}

/** `damage` changes what is sent, as a thief of the controller may. */
export function createMemoryEvidence(
  audit: Pick<AuditLog, 'record'>,
  damage = { on: false },
): EvidenceService {
  const all = [COMING, WHOLE]
  return {
    list: ({ agentId, limit }) =>
      all.filter((each) => agentId === undefined || each.agentId === agentId).slice(0, limit),
    get: (id) => all.find((each) => each.id === id),
    download(id, offset, by) {
      if (id !== EVIDENCE_ID || offset > WHOLE.sizeBytes) return undefined
      audit.record(by, 'evidence.download', id, WHOLE.path)
      const bytes = Buffer.from(EVIDENCE_CONTENT.subarray(offset))
      if (damage.on && bytes.length > 0) bytes[0] = (bytes[0] ?? 0) ^ 1
      return { id, sha256: WHOLE.sha256, bytes: bytes.length, open: () => Readable.from([bytes]) }
    },
  }
}
