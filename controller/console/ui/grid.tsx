/**
 * A table of any length: only the rows in sight are in the page. One row is selected, by mouse or with j and k;
 * Enter opens it.
 */
import { useVirtualizer } from '@tanstack/react-virtual'
import { ArrowDown, ArrowUp } from 'lucide-react'
import { type KeyboardEvent, type ReactNode, useRef } from 'react'
import { useShortcuts } from '../frame/keys.ts'

const ROW_PIXELS = 32
const OVERSCAN = 8

export interface Column<Row> {
  readonly name: string
  /** Part of `grid-template-columns`. */
  readonly width: string
  readonly cell: (row: Row) => ReactNode
  /** What the controller sorts by; without it the column cannot be sorted. */
  readonly sort?: string
  readonly right?: boolean
}

export interface Sorting {
  readonly by: string
  readonly order: 'ascending' | 'descending'
  readonly change: (by: string, order: 'ascending' | 'descending') => void
}

export function Grid<Row>({
  label,
  columns,
  rows,
  keyOf,
  selected,
  select,
  open,
  sorting,
}: {
  readonly label: string
  readonly columns: readonly Column<Row>[]
  readonly rows: readonly Row[]
  readonly keyOf: (row: Row) => string
  readonly selected: string
  readonly select: (key: string) => void
  readonly open: (row: Row) => void
  readonly sorting?: Sorting
}) {
  const grid = useRef<HTMLDivElement>(null)
  const scroller = useRef<HTMLDivElement>(null)
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_PIXELS,
    overscan: OVERSCAN,
  })
  const template = { gridTemplateColumns: columns.map(({ width }) => width).join(' ') }
  const at = rows.findIndex((row) => keyOf(row) === selected)
  const step = (by: number) => {
    const next = Math.min(rows.length - 1, Math.max(0, at < 0 ? 0 : at + by))
    const row = rows[next]
    if (row === undefined) return
    select(keyOf(row))
    virtual.scrollToIndex(next)
    grid.current?.focus({ preventScroll: true })
  }
  const openSelected = () => {
    const row = rows[at]
    if (row !== undefined) open(row)
  }
  useShortcuts({ j: () => step(1), k: () => step(-1) })
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.target !== event.currentTarget) return
    if (event.key === 'ArrowDown') step(1)
    else if (event.key === 'ArrowUp') step(-1)
    else if (event.key === 'Enter') openSelected()
    else return
    event.preventDefault()
  }
  return (
    <div
      className="vgrid"
      role="grid"
      ref={grid}
      tabIndex={0}
      onKeyDown={onKeyDown}
      aria-label={label}
      aria-rowcount={rows.length + 1}
      aria-activedescendant={at < 0 ? undefined : `row-${selected}`}
    >
      <div role="rowgroup">
        <div className="cols" role="row" style={template} aria-rowindex={1}>
          {columns.map((column) => (
            <Head key={column.name} column={column} sorting={sorting} />
          ))}
        </div>
      </div>
      <div className="rows" role="rowgroup" ref={scroller}>
        <div role="presentation" style={{ height: virtual.getTotalSize(), position: 'relative' }}>
          {virtual.getVirtualItems().map(({ index, start }) => {
            const row = rows[index]
            if (row === undefined) return null
            const key = keyOf(row)
            return (
              <div
                key={key}
                id={`row-${key}`}
                className={`vr${key === selected ? ' sel' : ''}`}
                role="row"
                aria-rowindex={index + 2}
                aria-selected={key === selected}
                style={{ ...template, transform: `translateY(${start}px)` }}
                onClick={(event) => (isInLink(event.target) ? undefined : select(key))}
                onDoubleClick={() => open(row)}
              >
                {columns.map((column) => (
                  <div key={column.name} role="gridcell" className={column.right ? 'c r' : 'c'}>
                    {column.cell(row)}
                  </div>
                ))}
              </div>
            )
          })}
        </div>
      </div>
    </div>
  )
}

/** A link leads away from here: selecting its row, too, would change the address back. */
function isInLink(target: EventTarget): boolean {
  return target instanceof Element && target.closest('a') !== null
}

function Head<Row>({
  column,
  sorting,
}: {
  readonly column: Column<Row>
  readonly sorting: Sorting | undefined
}) {
  const { name, sort, right } = column
  const isSorted = sorting !== undefined && sort !== undefined && sorting.by === sort
  const label = right ? 'c r' : 'c'
  if (sorting === undefined || sort === undefined) {
    return (
      <div role="columnheader" className={label}>
        {name}
      </div>
    )
  }
  const Arrow = sorting.order === 'ascending' ? ArrowUp : ArrowDown
  const next = isSorted && sorting.order === 'ascending' ? 'descending' : 'ascending'
  return (
    <div role="columnheader" className={label} aria-sort={isSorted ? sorting.order : 'none'}>
      <button type="button" className={isSorted ? 'on' : ''} onClick={() => sorting.change(sort, next)}>
        {name}
        {isSorted ? <Arrow size={11} aria-hidden /> : null}
      </button>
    </div>
  )
}
