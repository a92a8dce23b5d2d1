/** The status report for a person at a terminal. */
import type { StatusReport } from '../health/report.ts'

const megabytes = (bytes: number) => `${(bytes / 1024 ** 2).toFixed(1)} MiB`

/** Takes what the running agent answered. */
export function describeStatus(answer: unknown): string {
  // Only an agent of this very program answers on the socket in its own folder.
  const report = answer as StatusReport
  const rows: [string, string][] = [
    ['agent', `${report.agentId} (pid ${report.pid}, version ${report.version}) since ${report.startedAt}`],
    [
      'connection',
      `${report.connection.state} to ${report.connection.gatewayUrl}; ${report.connection.detail}`,
    ],
    ...(report.connection.held
      ? [
          ['HELD', 'two hosts use this identity; events are kept here until this one is readmitted'] as [
            string,
            string,
          ],
        ]
      : []),
    ...(report.certificate.renewal === null
      ? []
      : [['renewal', report.certificate.renewal] as [string, string]]),
    ['certificate', `until ${report.certificate.expiresAt}; keyset ${report.certificate.keysetVersion}`],
    ...report.sensors.map((sensor): [string, string] => [
      sensor.name,
      `${sensor.inForce ? 'IN FORCE' : 'not in force'}: ${sensor.reason}${sensor.inForce ? `; seen ${sensor.seen}, lost ${sensor.lost}` : ''}`,
    ]),
    ...report.refusedMounts.map((mount): [string, string] => [
      'not watched',
      `${mount.mountPoint}: ${mount.reason}`,
    ]),
    [
      'events',
      `${report.events.added} made, ${report.events.buffered} waiting (${megabytes(report.events.bufferedBytes)} on disk), ${report.events.dropped} dropped`,
    ],
    ...(report.events.trouble === null
      ? []
      : [['buffer', `TROUBLE: ${report.events.trouble}`] as [string, string]]),
    [
      'scanner',
      `${report.scanner.state}, ${report.scanner.engine}; ${report.scanner.scanned} scanned, ${report.scanner.skipped} skipped, ${report.scanner.queued} queued, ${report.scanner.restarts} restarts`,
    ],
    ['scanner budget', describeBudget(report.scanner.budget)],
    ['scanner cage', report.scanner.isolation.join(', ') || 'none'],
    ...report.scanner.ruleProblems.map((problem): [string, string] => ['rule problem', problem]),
    ['isolation', describeIsolation(report.networkIsolation)],
    ['lists', describeLists(report.telemetryLists)],
    ['interlock', report.interlock],
    ['memory', megabytes(report.residentBytes)],
  ]
  return rows.map(([name, value]) => `${name.padEnd(14)} ${value}`).join('\n')
}

function describeBudget({
  share,
  usedLastMinuteMs,
  oldestWaitMs,
}: StatusReport['scanner']['budget']): string {
  const seconds = (milliseconds: number) => `${(milliseconds / 1_000).toFixed(1)} s`
  const waits = oldestWaitMs === 0 ? 'nothing waits' : `the oldest file waits ${seconds(oldestWaitMs)}`
  return `${Math.round(share * 100)}% of one core; ${seconds(usedLastMinuteMs)} used in the last minute; ${waits}`
}

function describeIsolation(isolation: StatusReport['networkIsolation']): string {
  const { state, possible, reason, commandId, since, leaseEnds } = isolation
  if (state === 'off') return possible ? `possible: ${reason}` : `NOT POSSIBLE: ${reason}`
  const until = leaseEnds === null ? 'until released' : `until ${leaseEnds} or released`
  const asked = commandId === null ? 'by a command that is not known any more' : `by command ${commandId}`
  return `THIS HOST IS ISOLATED (${state}) ${asked}, since ${since ?? 'an unknown time'}, ${until}`
}

function describeLists(lists: StatusReport['telemetryLists']): string {
  if (lists === null) return 'none: nothing is left out by a rule of operators'
  const { rules, sha256, commandId, since } = lists
  return `${rules} telemetry ${rules === 1 ? 'rule' : 'rules'} in force since ${since}, by command ${commandId}, SHA-256 ${sha256}`
}
