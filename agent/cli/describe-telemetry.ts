/** What of the telemetry is seen on this host, for a person at a terminal. */
import type { StatusReport } from '../health/report.ts'

const HEAD = ['telemetry', 'seen', 'source', 'why'] as const

/** Takes what the running agent answered. */
export function describeTelemetry(answer: unknown): string {
  // Only an agent of this very program answers on the socket in its own folder.
  const { telemetry } = answer as StatusReport
  const rows = telemetry.map(({ name, seen, source, reason }) => [name, seen, source ?? '-', reason])
  const widths = HEAD.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)),
  )
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) => (column === HEAD.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)))
      .join('  ')
  const count = (seen: string) => telemetry.filter((row) => row.seen === seen).length
  const summary = `${count('yes')} of ${telemetry.length} rows are seen, ${count('partly')} partly, ${count('no')} not`
  return [line(HEAD), ...rows.map(line), '', summary].join('\n')
}
