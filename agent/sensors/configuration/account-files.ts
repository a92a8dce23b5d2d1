/**
 * passwd(5), shadow(5), group(5) and gshadow(5), taken apart. A password never leaves this file: what is kept of it
 * is what kind it is and a digest, which tells that it changed.
 */
import { createHash } from 'node:crypto'
import type { Standing } from '../safe-read.ts'
import { type AccountsState, cut } from './state.ts'

export const ACCOUNT_FILES = ['passwd', 'shadow', 'group', 'gshadow'] as const
export type AccountFile = (typeof ACCOUNT_FILES)[number]

/** Of all four files together with their separators, read at most. */
export const ACCOUNT_BYTES_MAX = 4 * 1024 * 1024
const ENTRIES_MAX = 32_768
const FIELDS_MAX = 9
const FIELD_CHARACTERS_MAX = 32_768
const NAME_CHARACTERS_MAX = 256
const PASSWORD_FIELD = 1

/** Null when there is no such file. */
export function toAccountsState(standing: Standing): AccountsState | null {
  if (standing.kind !== 'file') return null
  const entries = new Map<string, readonly string[]>()
  for (const line of standing.content.toString('utf8').split('\n')) {
    if (entries.size >= ENTRIES_MAX) break
    // glibc skips leading blanks, lines without a name and comments.
    const text = line.trimStart()
    if (text === '' || text.startsWith('#') || text.startsWith(':')) continue
    const fields = text.split(':', FIELDS_MAX).map(boundedField)
    const name = cut(fields[0] ?? '', NAME_CHARACTERS_MAX)
    if (fields.length < 2) continue
    entries.set(freeKey(entries, name), [
      name,
      passwordMark(fields[PASSWORD_FIELD] ?? ''),
      ...fields.slice(2),
    ])
  }
  return { kind: 'accounts', entries }
}

/** The first line of a name counts for the system; later ones are kept apart. */
function freeKey(entries: ReadonlyMap<string, unknown>, name: string): string {
  if (!entries.has(name)) return name
  for (let occurrence = 2; occurrence < 16; occurrence++) {
    if (!entries.has(`${name}:${occurrence}`)) return `${name}:${occurrence}`
  }
  return `${name}:16`
}

function boundedField(field: string): string {
  if (field.length <= FIELD_CHARACTERS_MAX) return field
  return `${cut(field, FIELD_CHARACTERS_MAX)}(${digest(field)})`
}

/** `x`, `*`, `!` and nothing stand as they are, with `!` before what is locked; all else is a digest. */
function passwordMark(field: string): string {
  const bare = field.replace(/^!+/, '')
  const lock = field === bare ? '' : '!'
  return /^[x*]?$/.test(bare) ? lock + bare : `${lock}#${digest(bare)}`
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16)
}

/** A line as it stands in passwd or group, without its password. */
export function accountLine(fields: readonly string[]): string {
  return fields
    .map((field, index) => (index === PASSWORD_FIELD ? field.replace(/#.*/, '(hidden)') : field))
    .join(':')
}
