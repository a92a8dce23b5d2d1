/** What is kept of one watched file: enough to say what changed the next time, and never a secret. */

import { isUtf8 } from 'node:buffer'
import { createHash } from 'node:crypto'
import { readable } from '../exact-path.ts'
import type { Standing } from '../safe-read.ts'

/** A file whose text is told. */
export interface TextState {
  readonly kind: 'text'
  /** Two states with one digest are the same. */
  readonly digest: string
  /** What a symbolic link says. */
  readonly link: string | null
  /** What is told of it, bounded; null when there was no room to keep it. */
  readonly text: string | null
}

/** A file of lines with fields between colons, by the name in the first. */
export interface AccountsState {
  readonly kind: 'accounts'
  readonly entries: ReadonlyMap<string, readonly string[]>
}

export interface AuthorizedKey {
  /** As `ssh-keygen -l` writes it. */
  readonly fingerprint: string
  readonly type: string
  readonly comment: string
  readonly options: string
}

export interface KeysState {
  readonly kind: 'keys'
  readonly keys: ReadonlyMap<string, AuthorizedKey>
}

export type FileState = TextState | AccountsState | KeysState

/** Characters of text that are kept of one file. */
export const KEPT_CHARACTERS_MAX = 64 * 1024
/** Bytes that are read to tell whether a file of text changed; of longer ones the size and time count, too. */
export const TEXT_BYTES_MAX = 1024 * 1024

const NOT_TOLD = '(the content is not told, because not everybody may read the file)'

/** `select` cuts the text down to what may be told. */
export function toTextState(
  standing: Standing,
  isOpen: boolean,
  select: (text: string) => string = (text) => text,
): TextState | null {
  switch (standing.kind) {
    case 'absent':
      return null
    case 'other':
      return { kind: 'text', digest: `other:${standing.reason}`, link: null, text: `(${standing.reason})` }
    case 'link': {
      const target = readable(standing.target)
      return { kind: 'text', digest: `link:${target}`, link: target, text: `link to ${target}` }
    }
    case 'file':
      return {
        kind: 'text',
        digest: digestOf(standing),
        link: null,
        text:
          isOpen || standing.readByOthers ? textOf(standing.content, standing.sizeBytes, select) : NOT_TOLD,
      }
  }
}

function digestOf(file: Extract<Standing, { kind: 'file' }>): string {
  if (file.sizeBytes === 0) return 'empty'
  const digest = createHash('sha256').update(file.content).digest('base64').slice(0, 43)
  const rest = file.sizeBytes > file.content.length ? `:${file.sizeBytes}:${file.changedNs}` : ''
  return digest + rest
}

function textOf(content: Buffer, sizeBytes: number, select: (text: string) => string): string {
  if (content.includes(0)) return `(${sizeBytes} bytes that are no text)`
  // A cut can fall into the middle of a character, which is no sign that the file is no text.
  const start = content.subarray(0, KEPT_CHARACTERS_MAX)
  if (!isUtf8(start) && !isUtf8(start.subarray(0, lastWholeCharacter(start)))) {
    return select(start.toString('latin1'))
  }
  return select(start.toString('utf8'))
}

function lastWholeCharacter(bytes: Buffer): number {
  let end = bytes.length
  for (let back = 0; back < 4 && end > 0; back++) {
    end -= 1
    const byte = bytes[end] ?? 0
    if (byte < 0x80 || byte >= 0xc0) return end
  }
  return end
}

/** Characters of memory that the state holds, roughly. */
export function weightOf(state: FileState): number {
  switch (state.kind) {
    case 'text':
      return 128 + (state.text?.length ?? 0)
    case 'accounts': {
      let weight = 0
      for (const fields of state.entries.values()) {
        weight += 64 + fields.reduce((sum, field) => sum + field.length, 0)
      }
      return weight
    }
    case 'keys':
      return state.keys.size * 512
  }
}

/** The first characters of a text, without half a surrogate pair at its end. */
export function cut(text: string, charactersMax: number): string {
  if (text.length <= charactersMax) return text
  const last = text.charCodeAt(charactersMax - 1)
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? charactersMax - 1 : charactersMax)
}
