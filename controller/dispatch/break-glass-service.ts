/** The codes of isolated hosts, for people who are at the host and can reach it no other way. */
import type { AuditLog, BreakGlassService, HostService } from '../api/services.ts'
import type { State } from '../state/state.ts'
import { timestamp } from '../state/timestamp.ts'

export function createBreakGlassService(dependencies: {
  readonly state: Pick<State, 'breakGlass' | 'run'>
  readonly hosts: Pick<HostService, 'get'>
  readonly audit: AuditLog
}): BreakGlassService {
  const { state, hosts, audit } = dependencies
  return {
    show: (agentId, by, reason) =>
      state.run(() => {
        const told = hosts.get(agentId)?.isolation?.commandId
        const named = told == null ? undefined : state.breakGlass.of(told)
        // A host names its command: what it says must not show the code of another one.
        const row = named?.agentId === agentId ? named : state.breakGlass.latest(agentId)
        if (row === undefined) return undefined
        audit.record(by, 'host.breakGlass', agentId, `Shown for command ${row.commandId}: ${reason}`)
        return { code: row.code, commandId: row.commandId, createdAt: timestamp(row.createdMs) }
      }),
  }
}
