/** What an event tells of a changed text: all of it when it is short, and the lines that differ when it is not. */
import type { EventOf } from '../../../shared/events/event.ts'
import { cut, type TextState } from './state.ts'

/** As the events' schema bounds `cordon.change.before` and `cordon.change.after`. */
const CHARACTERS_MAX = 4_096

export type BeforeAndAfter = Pick<
  EventOf<'persistence-changed'>,
  'cordon.change.before' | 'cordon.change.after'
>

export function beforeAndAfter(before: TextState | null, after: TextState | null): BeforeAndAfter {
  const texts = { before: before?.text ?? null, after: after?.text ?? null }
  const tooLong = (texts.before?.length ?? 0) > CHARACTERS_MAX || (texts.after?.length ?? 0) > CHARACTERS_MAX
  const told =
    tooLong && texts.before !== null && texts.after !== null
      ? differingLines(texts.before, texts.after)
      : texts
  return bothTexts(told.before, told.after)
}

/** Null: there was nothing, or what there was is not known. */
export function bothTexts(before: string | null, after: string | null): BeforeAndAfter {
  return {
    ...(before === null ? {} : { 'cordon.change.before': cut(before, CHARACTERS_MAX) }),
    ...(after === null ? {} : { 'cordon.change.after': cut(after, CHARACTERS_MAX) }),
  }
}

/** Leaves out the lines that both begin with and both end with. */
function differingLines(before: string, after: string): { readonly before: string; readonly after: string } {
  const old = before.split('\n')
  const current = after.split('\n')
  const shorter = Math.min(old.length, current.length)
  let same = 0
  while (same < shorter && old[same] === current[same]) same++
  let sameAtEnd = 0
  while (sameAtEnd < shorter - same && old.at(-1 - sameAtEnd) === current.at(-1 - sameAtEnd)) sameAtEnd++
  const middle = (lines: readonly string[]) => {
    const from = same === 0 ? '' : `(${same} lines as before)\n`
    const to = sameAtEnd === 0 ? '' : `\n(${sameAtEnd} lines as before)`
    const differing = lines.slice(same, lines.length - sameAtEnd).join('\n')
    return from + cut(differing, CHARACTERS_MAX - from.length - to.length) + to
  }
  return { before: middle(old), after: middle(current) }
}
