/** What crashes, ended commands and absent agents leave half done. */
import { FINAL_STATES } from '../dispatch/action.ts'
import type { EvidenceRow } from '../state/evidence-table.ts'
import type { State } from '../state/state.ts'
import type { EvidenceFiles } from './evidence-files.ts'

const SILENT_MS_MAX = 7 * 24 * 3_600_000

/** After a crash between the mark and the name, the mark holds: the hash was measured before it was set. */
export function endCrash(state: Pick<State, 'evidence'>, files: EvidenceFiles): void {
  for (const commandId of files.partials()) {
    const row = state.evidence.get(commandId)
    if (row?.state === 'complete') files.keep(commandId, row.sha256)
    else if (row?.state !== 'receiving') files.dropPartial(commandId)
  }
}

/** Why nobody will finish this file, or null. */
export function givenUpBecause(
  state: Pick<State, 'actions'>,
  row: EvidenceRow,
  nowMs: number,
): string | null {
  const action = state.actions.get(row.command_id)
  if (action === undefined || FINAL_STATES.has(action.state)) {
    return 'the command ended before the file was whole'
  }
  return nowMs - row.changed_ms > SILENT_MS_MAX ? 'nothing more came for a week' : null
}
