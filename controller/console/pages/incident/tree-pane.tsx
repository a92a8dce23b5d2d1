/** The process tree with what is known of the process that is selected. Only rows in sight are in the page. */
import type { UseQueryResult } from '@tanstack/react-query'
import { useVirtualizer } from '@tanstack/react-virtual'
import { type KeyboardEvent, useMemo, useRef, useState } from 'react'
import { type Opened, type TreeScope, useChildren } from '../../api/queries.ts'
import type { Action, Detection, Incident, ProcessNode } from '../../api/types.ts'
import { useAddress } from '../../frame/address.ts'
import { useShortcuts } from '../../frame/keys.ts'
import { type ProcessRow, type TreeRow, treeRows, worstRow } from '../../model/tree.ts'
import { Empty, Failed, Loading } from '../../ui/states.tsx'
import { ProcessDetail } from './process-detail.tsx'
import { TreeRowView } from './tree-row.tsx'
import { ViewSwitch } from './view-switch.tsx'

const ROW_PIXELS = 26
const HOST_PIXELS = 30
const OVERSCAN = 8

export function TreePane({
  incident,
  detections,
  actions,
  processes,
}: {
  readonly incident: Incident
  readonly detections: readonly Detection[]
  readonly actions: readonly Action[]
  readonly processes: UseQueryResult<ProcessNode[]>
}) {
  const address = useAddress()
  const scope: TreeScope = address.get('scope') === 'all' ? 'all' : 'path'
  const [switched, setSwitched] = useState<ReadonlyMap<string, boolean>>(new Map())
  const [opened, setOpened] = useState<readonly Opened[]>([])
  const loaded = useChildren(opened)
  const rows = useMemo(
    () =>
      treeRows({
        nodes: processes.data ?? [],
        hosts: incident.hosts,
        detections,
        actions,
        loaded,
        switched,
      }),
    [processes.data, incident.hosts, detections, actions, loaded, switched],
  )
  const selected = selectedRow(rows, address.get('process'))
  const open = (row: TreeRow, isOpen: boolean) => {
    if (row.kind === 'host') return
    setSwitched((before) => new Map(before).set(row.key, isOpen))
    if (!isOpen || row.kind === 'group' || !row.mayHaveMore) return
    const { agentId, key: entityId } = row
    setOpened((before) =>
      before.some((one) => one.entityId === entityId) ? before : [...before, { agentId, entityId }],
    )
  }
  const count = rows.filter(({ kind }) => kind === 'process').length
  return (
    <section className="pane tree" aria-label="Process tree">
      <header className="ph">
        <h2>Process tree</h2>
        <span className="mut">
          {processes.data
            ? `${processes.data.length} ${processes.data.length === 1 ? 'process' : 'processes'}`
            : ''}
        </span>
        <span className="grow" />
        <ViewSwitch />
        <fieldset className="seg">
          <legend className="vh">Processes shown</legend>
          <button
            type="button"
            className={scope === 'path' ? 'on' : ''}
            aria-pressed={scope === 'path'}
            onClick={() => address.set({ scope: '' })}
          >
            Attack path
          </button>
          <button
            type="button"
            className={scope === 'all' ? 'on' : ''}
            aria-pressed={scope === 'all'}
            onClick={() => address.set({ scope: 'all' })}
          >
            All
          </button>
        </fieldset>
      </header>
      {processes.data === undefined ? (
        processes.isError ? (
          <Failed error={processes.error} retry={() => processes.refetch()} />
        ) : (
          <Loading what="processes" />
        )
      ) : count === 0 ? (
        <Empty
          title="No process is known"
          todo="What was detected names no process: the timeline and the detections tell what there is."
        />
      ) : (
        <>
          <Rows
            rows={rows}
            selected={selected?.key ?? ''}
            select={(process) => address.set({ process })}
            open={open}
          />
          {selected ? (
            <ProcessDetail key={selected.key} row={selected} detections={detections} incident={incident} />
          ) : null}
        </>
      )}
    </section>
  )
}

/** What the address names, else the worst that was detected. */
function selectedRow(rows: readonly TreeRow[], named: string): ProcessRow | undefined {
  return rows.find((row): row is ProcessRow => row.kind === 'process' && row.key === named) ?? worstRow(rows)
}

function Rows({
  rows,
  selected,
  select,
  open,
}: {
  readonly rows: readonly TreeRow[]
  readonly selected: string
  readonly select: (key: string) => void
  readonly open: (row: TreeRow, isOpen: boolean) => void
}) {
  const grid = useRef<HTMLDivElement>(null)
  const scroller = useRef<HTMLDivElement>(null)
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: (index) => (rows[index]?.kind === 'host' ? HOST_PIXELS : ROW_PIXELS),
    getItemKey: (index) => rows[index]?.key ?? index,
    overscan: OVERSCAN,
  })
  const at = rows.findIndex(({ key }) => key === selected)
  const step = (by: 1 | -1) => {
    for (let next = at + by; next >= 0 && next < rows.length; next += by) {
      const row = rows[next]
      if (row?.kind !== 'process') continue
      select(row.key)
      virtual.scrollToIndex(next)
      break
    }
    grid.current?.focus({ preventScroll: true })
  }
  const switchSelected = (isOpen: boolean) => {
    const row = rows[at]
    if (row) open(row, isOpen)
  }
  useShortcuts({ j: () => step(1), k: () => step(-1) })
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.target !== event.currentTarget) return
    if (event.key === 'ArrowDown') step(1)
    else if (event.key === 'ArrowUp') step(-1)
    else if (event.key === 'ArrowRight') switchSelected(true)
    else if (event.key === 'ArrowLeft') switchSelected(false)
    else return
    event.preventDefault()
  }
  return (
    <div
      className="vgrid"
      role="treegrid"
      ref={grid}
      tabIndex={0}
      onKeyDown={onKeyDown}
      aria-label="Processes"
      aria-rowcount={rows.length + 1}
      aria-activedescendant={at < 0 ? undefined : `process-${selected}`}
    >
      <div role="rowgroup">
        <div className="cols treecols" role="row" aria-rowindex={1}>
          {['Process', 'Signal', 'User', 'PID', 'Started'].map((name) => (
            <div role="columnheader" key={name} className={name === 'PID' || name === 'Started' ? 'r' : ''}>
              {name}
            </div>
          ))}
        </div>
      </div>
      <div className="rows" role="rowgroup" ref={scroller}>
        <div role="presentation" style={{ height: virtual.getTotalSize(), position: 'relative' }}>
          {virtual.getVirtualItems().map(({ index, start, key }) => {
            const row = rows[index]
            return row === undefined ? null : (
              <TreeRowView
                key={key}
                row={row}
                index={index}
                top={start}
                isSelected={row.key === selected}
                select={() => select(row.key)}
                open={(isOpen) => open(row, isOpen)}
              />
            )
          })}
        </div>
      </div>
    </div>
  )
}
