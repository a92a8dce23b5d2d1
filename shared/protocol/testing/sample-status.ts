import type { AgentMessage } from '../messages.ts'
import { ISOLATION_OFF } from './isolation-off.ts'

/** What an agent says of itself that has nothing to tell. */
export const SAMPLE_STATUS: Extract<AgentMessage, { kind: 'status' }> = {
  kind: 'status',
  sensors: [],
  bufferedRows: 0,
  bufferedBytes: 0,
  droppedRows: 0,
  scanner: { scanned: 0, skipped: 0, restarts: 0, queued: 0 },
  residentBytes: 1,
  certificateExpires: '2030-01-01T00:00:00.000Z',
  isolation: ISOLATION_OFF,
}
