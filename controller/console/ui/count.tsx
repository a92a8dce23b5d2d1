/** Numbers in columns: nothing to see when there is nothing. */

export function Count({ of, warn = false }: { readonly of: number; readonly warn?: boolean }) {
  if (of === 0) return <span className="mut">0</span>
  return <span className={warn ? 'c-high' : ''}>{of.toLocaleString('en-GB')}</span>
}
