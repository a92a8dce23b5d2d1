/** Lists as CSV (RFC 4180) that a spreadsheet shows and does not run. */

/**
 * `columns` maps a heading to a path: names separated by dots, or one name that holds dots itself, as the
 * fields of events do.
 */
export function csvOf(rows: readonly unknown[], columns: Readonly<Record<string, string>>): string {
  const lines = [
    Object.keys(columns),
    ...rows.map((row) => Object.values(columns).map((path) => valueAt(row, path))),
  ]
  return `${lines.map((cells) => cells.map(cell).join(',')).join('\r\n')}\r\n`
}

function valueAt(row: unknown, path: string): unknown {
  if (typeof row !== 'object' || row === null) return undefined
  if (Object.hasOwn(row, path)) return (row as Record<string, unknown>)[path]
  const dot = path.indexOf('.')
  if (dot < 0 || !Object.hasOwn(row, path.slice(0, dot))) return undefined
  return valueAt((row as Record<string, unknown>)[path.slice(0, dot)], path.slice(dot + 1))
}

function cell(value: unknown): string {
  if (value === undefined || value === null) return ''
  if (typeof value === 'number' || typeof value === 'boolean') return String(value)
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  // A cell that begins like this is a formula to spreadsheets: `=cmd|...` starts programs.
  const inert = /^[\s\0]*[=+\-@|%\t\r\n]/.test(text) ? `'${text}` : text
  return `"${inert.replaceAll('\0', '').replaceAll('"', '""')}"`
}
