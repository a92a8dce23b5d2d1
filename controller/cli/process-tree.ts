/** Process trees: read around one process from the stored events, and drawn as lines. */
import { clipped } from '../correlate/words.ts'
import type { ProcessNode } from '../incidents/incident.ts'
import { type CommandContext, EXIT, Failure } from './command.ts'
import { type EventRow, queryEvents, textOf } from './event-rows.ts'
import { printable } from './printable.ts'
import type { Printer } from './printer.ts'

/** Of a command line in a tree: what comes after is in `-o wide`. */
export const COMMAND_CHARACTERS = 160
const ANCESTORS_MAX = 32
const DEPTH_MAX = 8
const NODES_MAX = 500
/** Per parent; a fork bomb is shown by its first children. */
const CHILDREN_MAX = 100

/** The process, its ancestors and its descendants, as far as events tell of them. */
export async function readTree(context: CommandContext, entityId: string): Promise<ProcessNode[]> {
  const nodes = new Map<string, ProcessNode>()
  let parent: string | null = entityId
  for (let step = 0; parent !== null && step <= ANCESTORS_MAX && !nodes.has(parent); step += 1) {
    const node: ProcessNode | undefined = nodeOf(
      parent,
      await queryEvents(context, { entityId: parent, limit: 50 }),
    )
    if (!node) break
    nodes.set(node.entityId, node)
    parent = node.parentEntityId
  }
  if (!nodes.has(entityId)) {
    throw new Failure(EXIT.notFound, 'notFound', `nothing is known of process ${entityId}`)
  }
  let level = [entityId]
  for (let depth = 0; depth < DEPTH_MAX && level.length > 0 && nodes.size < NODES_MAX; depth += 1) {
    const next: string[] = []
    for (const parentEntityId of level) {
      const rows = await queryEvents(context, { parentEntityId, limit: CHILDREN_MAX })
      for (const child of new Set(rows.map((row) => textOf(row, 'process.entity_id')))) {
        if (child === undefined || nodes.has(child) || nodes.size >= NODES_MAX) continue
        const node = nodeOf(
          child,
          rows.filter((row) => textOf(row, 'process.entity_id') === child),
        )
        if (node) nodes.set(child, node)
        next.push(child)
      }
    }
    level = next
  }
  return [...nodes.values()]
}

function nodeOf(entityId: string, rows: readonly EventRow[]): ProcessNode | undefined {
  if (rows.length === 0) return undefined
  const first = (name: string) => rows.map((row) => textOf(row, name)).find((value) => value !== undefined)
  const at = (action: string) => {
    const row = rows.find((each) => textOf(each, 'event.action') === action)
    return (row && textOf(row, '@timestamp')) ?? null
  }
  return {
    entityId,
    parentEntityId: first('process.parent.entity_id') ?? null,
    pid: Number(entityId.split('.')[2] ?? 0),
    executable: first('process.executable') ?? null,
    commandLine: first('process.command_line') ?? null,
    user: first('user.name') ?? null,
    sha256: first('process.hash.sha256') ?? null,
    startedAt: at('exec'),
    endedAt: at('exit'),
    detections: [...new Set(rows.flatMap((row) => textOf(row, 'rule.name') ?? []))].slice(0, 64),
  }
}

/** One line a process; a parent that is not among the nodes makes a root. */
export function treeLines(
  nodes: readonly ProcessNode[],
  print: Printer,
  commandCharactersMax = Number.POSITIVE_INFINITY,
): string[] {
  const children = new Map<string | null, ProcessNode[]>()
  const known = new Set(nodes.map(({ entityId }) => entityId))
  for (const node of nodes) {
    const parent = node.parentEntityId !== null && known.has(node.parentEntityId) ? node.parentEntityId : null
    children.set(parent, [...(children.get(parent) ?? []), node])
  }
  const lines: string[] = []
  const drawn = new Set<string>()
  // With a stack of its own, and each process once: a lying host may report a chain of any depth, or a ring.
  const stack = (children.get(null) ?? []).map((node) => ({ node, stem: '', branch: '' })).reverse()
  for (let next = stack.pop(); next; next = stack.pop()) {
    const { node, stem, branch } = next
    if (drawn.has(node.entityId)) continue
    drawn.add(node.entityId)
    lines.push(`${stem}${branch}${nodeText(node, print, commandCharactersMax)}`)
    const below = children.get(node.entityId) ?? []
    const nextStem = (stem + (branch === '' ? '' : branch === '├─ ' ? '│  ' : '   ')).slice(0, 120)
    for (const [index, child] of [...below.entries()].reverse()) {
      stack.push({ node: child, stem: nextStem, branch: index === below.length - 1 ? '└─ ' : '├─ ' })
    }
  }
  const ring = nodes.length - drawn.size
  return ring > 0 ? [...lines, `(${ring} more, each its own ancestor: not drawn)`] : lines
}

function nodeText(node: ProcessNode, print: Printer, commandCharactersMax: number): string {
  // A program may overwrite its own command line, and then pads it with blanks.
  const what = printable(
    clipped((node.commandLine ?? node.executable ?? '?').trimEnd(), commandCharactersMax),
  )
  const found = node.detections.length > 0 ? `  ▲ ${printable(node.detections.join(', '))}` : ''
  const user = node.user === null ? '' : `  ${printable(node.user)}`
  const ended = node.endedAt === null ? '' : `  ended ${print.time(node.endedAt)}`
  return `${node.pid}  ${what}${user}${ended}${found}  [${printable(node.entityId)}]`
}
