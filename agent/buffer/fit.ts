/** Cuts an event that is larger than the contract allows, and says in it which fields were cut. */
import { Buffer } from 'node:buffer'
import { type CordonEvent, EVENT_SCHEMAS } from '../../shared/events/event.ts'

/** Texts this short hold identities, hashes and time stamps, which are whole or worthless. */
const TEXT_CHARACTERS_KEPT = 128
const NAMES_MAX = 8
const STEPS_MAX = 500

interface Leaf {
  readonly container: Record<string, unknown>
  readonly key: string
  /** Field of the event that holds the text. */
  readonly field: string
  /** A copy of a text's exact bytes in base64: a part of it would pass for the whole. */
  readonly exact: boolean
  readonly bytes: number
}

/**
 * The JSON of an event in at most `bytesMax` UTF-8 bytes: while it is too long its longest text is halved (an
 * exact-bytes copy is left out whole) and the field is named in `cordon.truncated`, where the action has that
 * field. Null when no cutting of texts helps.
 */
export function fitEvent(event: CordonEvent, bytesMax: number): string | null {
  const copy: Record<string, unknown> = structuredClone(event)
  for (let step = 0; step < STEPS_MAX; step += 1) {
    const text = JSON.stringify(copy)
    if (Buffer.byteLength(text) <= bytesMax) return text
    const leaf = leavesOf(copy).reduce<Leaf | null>((a, b) => (a && a.bytes >= b.bytes ? a : b), null)
    if (!leaf) return null
    if (leaf.exact) delete leaf.container[leaf.key]
    else leaf.container[leaf.key] = half(String(leaf.container[leaf.key]))
    if ('cordon.truncated' in EVENT_SCHEMAS[event['event.action']].properties) name(copy, leaf.field)
  }
  return null
}

function leavesOf(event: Record<string, unknown>): Leaf[] {
  const leaves: Leaf[] = []
  const visit = (container: Record<string, unknown>, field: string | null, exact: boolean) => {
    for (const [key, value] of Object.entries(container)) {
      if (typeof value === 'string' && value.length > TEXT_CHARACTERS_KEPT) {
        const bytes = Buffer.byteLength(JSON.stringify(value))
        leaves.push({ container, key, field: field ?? key, exact, bytes })
      } else if (typeof value === 'object' && value !== null) {
        const isExact = key === 'cordon.bytes'
        visit(value as Record<string, unknown>, isExact ? null : (field ?? key), isExact)
      }
    }
  }
  visit(event, null, false)
  return leaves
}

function half(text: string): string {
  const kept = text.slice(0, Math.max(TEXT_CHARACTERS_KEPT, Math.floor(text.length / 2)))
  // Never between the two halves of one character.
  return /[\uD800-\uDBFF]$/.test(kept) ? kept.slice(0, -1) : kept
}

function name(event: Record<string, unknown>, field: string): void {
  const names = Array.isArray(event['cordon.truncated']) ? event['cordon.truncated'] : []
  if (names.includes(field) || names.length >= NAMES_MAX) return
  event['cordon.truncated'] = [...names, field]
}
