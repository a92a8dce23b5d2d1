/** Findings for tests: ordinary unless said otherwise. */
import type { Finding } from '../finding.ts'

export const HOST_A = 'a'.repeat(32)
export const HOST_B = 'b'.repeat(32)
export const HOST_C = 'c'.repeat(32)
export const NOW_MS = Date.parse('2026-11-24T10:00:00.000Z')

/** Entity id of a process of that agent. */
export function entity(agentId: string, pid: number): string {
  return `${agentId.slice(0, 8)}.0badb007.${pid}.${pid * 100}`
}

let counter = 0

export function findingOn(agentId: string, overrides: Partial<Finding> = {}): Finding {
  counter += 1
  return {
    id: counter.toString(16).padStart(32, '0'),
    agentId,
    hostName: `host-${agentId.slice(0, 1)}`,
    source: 'agent',
    eventMs: NOW_MS,
    startedMs: overrides.eventMs ?? NOW_MS,
    receivedMs: NOW_MS + 50,
    engine: 'yara',
    severity: 'high',
    ruleId: 'test.rule',
    ruleName: 'Test rule',
    techniques: [],
    indicator: null,
    entityId: null,
    sessionLeader: null,
    ancestors: [],
    sessionAncestors: 0,
    processName: null,
    commandLine: null,
    parentExecutable: null,
    workingDirectory: null,
    filePath: null,
    fileSha256: null,
    ...overrides,
  }
}

/** A finding in a process: `line` is its pid and then those of its ancestors, nearest first. */
export function processFinding(
  agentId: string,
  line: readonly number[],
  sessionAncestors: number,
  overrides: Partial<Finding> = {},
): Finding {
  const [entityId = null, ...ancestors] = line.map((pid) => entity(agentId, pid))
  return findingOn(agentId, {
    entityId,
    ancestors,
    sessionAncestors,
    processName: 'sh',
    ...overrides,
  })
}
