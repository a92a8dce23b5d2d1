/**
 * The process tree as rows of a table: the attack's path told from what only stands beside it, quiet siblings of
 * one program in one row, and lines that say which row hangs under which. Pure.
 */
import type { Action, Detection, ProcessNode, Severity } from '../api/types.ts'

/** From how many on, quiet siblings of one program share a row. */
const GROUPED_FROM = 4
const ROWS_MAX = 5_000
/** Lines further in would leave no room for names. */
const GUIDES_MAX = 24

export interface TreeHost {
  readonly agentId: string
  readonly hostName: string
}

export interface TreeFacts {
  readonly nodes: readonly ProcessNode[]
  readonly hosts: readonly TreeHost[]
  readonly detections: readonly Detection[]
  readonly actions: readonly Action[]
  /** Children that were loaded since, by the process that was opened. */
  readonly loaded: ReadonlyMap<string, readonly ProcessNode[]>
  /** What someone opened (true) or closed (false); everything else stands as it is at first. */
  readonly switched: ReadonlyMap<string, boolean>
}

/** One vertical line left of a row: none, or one that is part of the attack's path. */
export interface Guide {
  readonly line: boolean
  readonly hot: boolean
}

export interface ProcessRow {
  readonly kind: 'process'
  readonly key: string
  readonly node: ProcessNode
  readonly agentId: string
  readonly depth: number
  readonly guides: readonly Guide[]
  readonly last: boolean
  /** Leads to a detected process, or is one. */
  readonly hot: boolean
  /** A later sibling is hot: the line goes on in the attack's colour. */
  readonly hotAfter: boolean
  readonly severity: Severity | null
  readonly signal: string | null
  readonly moreSignals: number
  /** A kill of this very process is done and proved. */
  readonly killed: boolean
  readonly childCount: number
  readonly isOpen: boolean
  /** Nobody has asked for its children yet. */
  readonly mayHaveMore: boolean
}

export interface GroupRow {
  readonly kind: 'group'
  readonly key: string
  readonly name: string
  readonly count: number
  readonly isOpen: boolean
  readonly depth: number
  readonly guides: readonly Guide[]
  readonly last: boolean
  readonly hotAfter: boolean
}

export interface HostRow {
  readonly kind: 'host'
  readonly key: string
  readonly agentId: string
  readonly hostName: string
}

export type TreeRow = HostRow | ProcessRow | GroupRow

const RANKS: readonly Severity[] = ['info', 'low', 'medium', 'high', 'critical']

export function treeRows(facts: TreeFacts): readonly TreeRow[] {
  const nodes = allNodes(facts)
  const children = childrenOf(nodes)
  const signals = signalsOf(facts.detections)
  const killed = killedProcesses(facts.actions)
  const hot = hotProcesses(nodes, signals)
  const rows: TreeRow[] = []
  const drawn = new Set<string>()
  const context: Context = { facts, children, signals, killed, hot, rows, drawn }
  for (const host of hostsOf(nodes, facts.hosts)) {
    rows.push({ kind: 'host', key: `host ${host.agentId}`, ...host })
    const prefix = `${host.agentId.slice(0, 8)}.`
    const roots = (children.get(null) ?? []).filter(({ entityId }) => entityId.startsWith(prefix))
    addRows(context, roots, host.agentId)
  }
  return rows
}

interface Context {
  readonly facts: TreeFacts
  readonly children: ReadonlyMap<string | null, readonly ProcessNode[]>
  readonly signals: ReadonlyMap<string, readonly Detection[]>
  readonly killed: ReadonlySet<string>
  readonly hot: ReadonlySet<string>
  readonly rows: TreeRow[]
  readonly drawn: Set<string>
}

interface Item {
  readonly of:
    | ProcessNode
    | { readonly name: string; readonly members: readonly ProcessNode[]; readonly key: string }
  readonly depth: number
  readonly guides: readonly Guide[]
  readonly last: boolean
  readonly hotAfter: boolean
}

/** With a stack of its own, and each process once: a lying host may report a chain of any depth, or a ring. */
function addRows(context: Context, roots: readonly ProcessNode[], agentId: string): void {
  const { rows, drawn, children, facts } = context
  const stack = itemsOf(context, roots, null, 0, []).reverse()
  for (let item = stack.pop(); item !== undefined && rows.length < ROWS_MAX; item = stack.pop()) {
    const { of, depth, guides, last, hotAfter } = item
    if ('members' in of) {
      const isOpen = facts.switched.get(of.key) === true
      rows.push({
        kind: 'group',
        key: of.key,
        name: of.name,
        count: of.members.length,
        isOpen,
        depth,
        guides,
        last,
        hotAfter,
      })
      if (isOpen) {
        const below = withGuide(guides, { line: !last, hot: hotAfter })
        stack.push(...plainItems(context, of.members, depth + 1, below).reverse())
      }
      continue
    }
    if (drawn.has(of.entityId)) continue
    drawn.add(of.entityId)
    const row = processRow(context, of, agentId, { depth, guides, last, hotAfter })
    rows.push(row)
    if (!row.isOpen) continue
    const below = depth === 0 ? guides : withGuide(guides, { line: !last, hot: hotAfter })
    const found = children.get(of.entityId) ?? []
    stack.push(...itemsOf(context, found, of.entityId, depth + 1, below).reverse())
  }
}

function withGuide(guides: readonly Guide[], next: Guide): readonly Guide[] {
  return guides.length < GUIDES_MAX ? [...guides, next] : guides
}

function processRow(
  { facts, children, signals, killed, hot }: Context,
  node: ProcessNode,
  agentId: string,
  place: Pick<ProcessRow, 'depth' | 'guides' | 'last' | 'hotAfter'>,
): ProcessRow {
  const { entityId } = node
  const found = signals.get(entityId) ?? []
  const childCount = children.get(entityId)?.length ?? 0
  return {
    kind: 'process',
    key: entityId,
    node,
    agentId,
    ...place,
    hot: hot.has(entityId),
    severity: found[0]?.severity ?? null,
    signal: found[0]?.ruleName ?? node.detections[0] ?? null,
    moreSignals: Math.max(0, Math.max(found.length, node.detections.length) - 1),
    killed: killed.has(entityId),
    childCount,
    isOpen: facts.switched.get(entityId) ?? childCount > 0,
    mayHaveMore: !facts.loaded.has(entityId),
  }
}

/** Siblings in the order of their start, the quiet ones of one program together. */
function itemsOf(
  context: Context,
  siblings: readonly ProcessNode[],
  parent: string | null,
  depth: number,
  guides: readonly Guide[],
): Item[] {
  const byName = new Map<string, ProcessNode[]>()
  for (const node of siblings) {
    if (context.hot.has(node.entityId) || context.children.has(node.entityId)) continue
    const name = processName(node)
    byName.set(name, [...(byName.get(name) ?? []), node])
  }
  const grouped = [...byName].filter(([, members]) => members.length >= GROUPED_FROM)
  const isGrouped = new Set(grouped.flatMap(([, members]) => members.map(({ entityId }) => entityId)))
  const items: Item['of'][] = [
    ...siblings.filter(({ entityId }) => !isGrouped.has(entityId)),
    ...grouped.map(([name, members]) => ({ name, members, key: `group ${parent} ${name}` })),
  ]
  return placed(context, items, depth, guides)
}

function plainItems(
  context: Context,
  members: readonly ProcessNode[],
  depth: number,
  guides: readonly Guide[],
): Item[] {
  return placed(context, members, depth, guides)
}

function placed(
  { hot }: Context,
  items: readonly Item['of'][],
  depth: number,
  guides: readonly Guide[],
): Item[] {
  const isHot = (of: Item['of']) => 'entityId' in of && hot.has(of.entityId)
  const lastHot = items.findLastIndex(isHot)
  return items.map((of, index) => ({
    of,
    depth,
    guides,
    last: index === items.length - 1,
    hotAfter: index < lastHot,
  }))
}

function allNodes({ nodes, loaded }: TreeFacts): ReadonlyMap<string, ProcessNode> {
  const all = new Map(nodes.map((node) => [node.entityId, node]))
  for (const [parentEntityId, children] of loaded) {
    for (const child of children) {
      if (!all.has(child.entityId)) all.set(child.entityId, { ...child, parentEntityId })
    }
  }
  return all
}

function childrenOf(
  nodes: ReadonlyMap<string, ProcessNode>,
): ReadonlyMap<string | null, readonly ProcessNode[]> {
  const children = new Map<string | null, ProcessNode[]>()
  for (const node of nodes.values()) {
    const parent = node.parentEntityId !== null && nodes.has(node.parentEntityId) ? node.parentEntityId : null
    const siblings = children.get(parent)
    if (siblings) siblings.push(node)
    else children.set(parent, [node])
  }
  for (const siblings of children.values()) {
    siblings.sort(
      (left, right) => (left.startedAt ?? '').localeCompare(right.startedAt ?? '') || left.pid - right.pid,
    )
  }
  return children
}

/** The row that deserves to be looked at first: that of the most severe finding, else the first process. */
export function worstRow(rows: readonly TreeRow[]): ProcessRow | undefined {
  const rank = ({ severity }: ProcessRow) => (severity === null ? -1 : RANKS.indexOf(severity))
  return rows
    .filter((row) => row.kind === 'process')
    .reduce<ProcessRow | undefined>(
      (worst, row) => (worst && rank(worst) >= rank(row) ? worst : row),
      undefined,
    )
}

/** Detections by process, the most severe first. */
function signalsOf(detections: readonly Detection[]): ReadonlyMap<string, readonly Detection[]> {
  const signals = new Map<string, Detection[]>()
  for (const detection of detections) {
    if (detection.entityId === null) continue
    const found = signals.get(detection.entityId)
    if (found) found.push(detection)
    else signals.set(detection.entityId, [detection])
  }
  for (const found of signals.values()) {
    found.sort((left, right) => RANKS.indexOf(right.severity) - RANKS.indexOf(left.severity))
  }
  return signals
}

/** Detected processes and everything that leads to one. Bounded: a lying host may report a ring. */
function hotProcesses(
  nodes: ReadonlyMap<string, ProcessNode>,
  signals: ReadonlyMap<string, readonly Detection[]>,
): ReadonlySet<string> {
  const hot = new Set<string>()
  for (const node of nodes.values()) {
    if (node.detections.length === 0 && !signals.has(node.entityId)) continue
    for (
      let at: ProcessNode | undefined = node;
      at !== undefined && !hot.has(at.entityId);
      at = at.parentEntityId === null ? undefined : nodes.get(at.parentEntityId)
    ) {
      hot.add(at.entityId)
    }
  }
  return hot
}

/** Entity ids end in pid and start: what a kill was aimed at, too. */
function killedProcesses(actions: readonly Action[]): ReadonlySet<string> {
  return new Set(
    actions.flatMap(({ action, state, agentId, target }) =>
      action === 'killProcess' && state === 'done' && target.kind === 'process'
        ? [
            `${agentId.slice(0, 8)}.${target.bootId.replaceAll('-', '').slice(0, 8)}.${target.pid}.${target.startTicks}`,
          ]
        : [],
    ),
  )
}

/** Hosts of the incident that have processes here; one that the incident does not list still shows. */
function hostsOf(nodes: ReadonlyMap<string, ProcessNode>, hosts: readonly TreeHost[]): readonly TreeHost[] {
  const prefixes = new Set([...nodes.keys()].map((entityId) => entityId.slice(0, 8)))
  const known = hosts.filter(({ agentId }) => prefixes.has(agentId.slice(0, 8)))
  const named = new Set(known.map(({ agentId }) => agentId.slice(0, 8)))
  const others = [...prefixes]
    .filter((prefix) => !named.has(prefix))
    .map((prefix) => ({ agentId: prefix, hostName: prefix }))
  return [...known, ...others]
}

export function processName({ executable, commandLine }: ProcessNode): string {
  return executable?.split('/').at(-1) || commandLine?.split(' ')[0] || 'unknown'
}

/** What was passed to it: the command line without its first word when that is the program. */
export function processArguments(node: ProcessNode): string {
  const { commandLine, executable } = node
  if (commandLine === null) return executable === null ? '' : executable
  const [first = '', ...rest] = commandLine.trim().split(' ')
  const isProgram = first.split('/').at(-1) === processName(node)
  return isProgram ? rest.join(' ') : commandLine
}
