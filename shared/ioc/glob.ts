/**
 * Globs over file names and paths, matched by following all states at once: time is bounded by pattern length
 * times text length, whatever the pattern. `?` is one character and `*` any number within a path component,
 * `**` any number of any characters, `\` takes the next character literally.
 */

export const GLOB_CHARACTERS_MAX = 512

const ANY_IN_COMPONENT = 1
const ANY = 2
const ONE = 3
const LITERAL = 0
const SLASH = 47

/** True when the value has to be matched as a glob: it has an unescaped wildcard, or an escape. */
export function isGlob(value: string): boolean {
  return /[*?\\]/.test(value)
}

export type GlobMatcher = (text: string) => boolean

/** Throws a RangeError when the pattern is longer than `GLOB_CHARACTERS_MAX`: a list's reader refuses it first. */
export function compileGlob(pattern: string): GlobMatcher {
  if (pattern.length > GLOB_CHARACTERS_MAX) throw new RangeError('the glob is too long')
  const { kinds, codes } = parseGlob(pattern)
  const head = literalHead(kinds, codes)
  const tail = literalTail(kinds, codes)
  const isExact = head.length === kinds.length
  if (isExact) return (text) => text === head
  return (text) =>
    text.length >= head.length + tail.length &&
    text.startsWith(head) &&
    text.endsWith(tail) &&
    followStates(kinds, codes, text, head.length)
}

interface Steps {
  readonly kinds: readonly number[]
  readonly codes: readonly number[]
}

function parseGlob(pattern: string): Steps {
  const kinds: number[] = []
  const codes: number[] = []
  const push = (kind: number, code = 0) => {
    kinds.push(kind)
    codes.push(code)
  }
  for (let index = 0; index < pattern.length; index += 1) {
    const character = pattern[index]
    if (character === '*') {
      if (pattern[index + 1] === '*') {
        index += 1
        push(ANY)
      } else {
        push(ANY_IN_COMPONENT)
      }
    } else if (character === '?') {
      push(ONE)
    } else {
      // A backslash at the very end stands for itself.
      if (character === '\\' && index + 1 < pattern.length) index += 1
      push(LITERAL, pattern.charCodeAt(index))
    }
  }
  return { kinds, codes }
}

function literalHead(kinds: readonly number[], codes: readonly number[]): string {
  const end = kinds.findIndex((kind) => kind !== LITERAL)
  return String.fromCharCode(...codes.slice(0, end < 0 ? kinds.length : end))
}

function literalTail(kinds: readonly number[], codes: readonly number[]): string {
  const start = kinds.findLastIndex((kind) => kind !== LITERAL) + 1
  return start === 0 ? '' : String.fromCharCode(...codes.slice(start))
}

/** `first`: the step and the character to start at; the steps before it are known to match. */
function followStates(
  kinds: readonly number[],
  codes: readonly number[],
  text: string,
  first: number,
): boolean {
  const end = kinds.length
  let states = new Uint8Array(end + 1)
  let next = new Uint8Array(end + 1)
  enter(states, kinds, first)
  for (let index = first; index < text.length; index += 1) {
    const code = text.charCodeAt(index)
    let isAlive = false
    for (let step = first; step < end; step += 1) {
      if (states[step] === 0) continue
      const kind = kinds[step]
      if (kind === ANY || (kind === ANY_IN_COMPONENT && code !== SLASH)) {
        enter(next, kinds, step)
        isAlive = true
      } else if ((kind === LITERAL && codes[step] === code) || (kind === ONE && code !== SLASH)) {
        enter(next, kinds, step + 1)
        isAlive = true
      }
    }
    if (!isAlive) return false
    const spent = states
    states = next
    next = spent
    next.fill(0)
  }
  return states[end] === 1
}

/** Marks a step, and those behind it that a star in between may skip. */
function enter(states: Uint8Array, kinds: readonly number[], step: number): void {
  for (let index = step; ; index += 1) {
    if (states[index] === 1) return
    states[index] = 1
    const kind = kinds[index]
    if (kind !== ANY && kind !== ANY_IN_COMPONENT) return
  }
}
