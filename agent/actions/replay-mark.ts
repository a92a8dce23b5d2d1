/**
 * What is known of executed commands without the journal: a small file, replaced as a whole. It holds the highest
 * (epoch, sequence), so that no delivery is taken twice, and the latest start of validity that was admitted, so
 * that no approval given up to then is taken again under a new sequence, the command ids being lost.
 */
import { readFileSync } from 'node:fs'
import Type, { type Static } from 'typebox'
import { writeFileDurably } from '../../shared/node/durable-file.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'

const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const ReplayMark = Type.Object(
  { epoch: Count, sequence: Count, notBeforeMs: Count },
  { additionalProperties: false },
)
export type ReplayMark = Readonly<Static<typeof ReplayMark>>

const markCheck = compileSchema(ReplayMark)
const BYTES_MAX = 256

export const NO_MARK: ReplayMark = { epoch: 0, sequence: 0, notBeforeMs: 0 }

export type ReplayMarkRead =
  | { readonly kind: 'mark'; readonly mark: ReplayMark }
  | { readonly kind: 'missing' | 'damaged' }

export interface ReplayMarkFile {
  read(): ReplayMarkRead
  /** On disk when it returns; throws when it cannot be. */
  write(mark: ReplayMark): void
}

export function openReplayMark(path: string): ReplayMarkFile {
  return {
    read() {
      let text: string
      try {
        text = readFileSync(path, 'utf8')
      } catch (error) {
        return { kind: (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'missing' : 'damaged' }
      }
      const parsed = parseStrict(markCheck, text, BYTES_MAX)
      return parsed.ok ? { kind: 'mark', mark: parsed.value } : { kind: 'damaged' }
    },
    write: ({ epoch, sequence, notBeforeMs }) =>
      writeFileDurably(path, JSON.stringify({ epoch, sequence, notBeforeMs }), 0o600),
  }
}

export function isNewer(one: ReplayMark, other: ReplayMark): boolean {
  return one.epoch > other.epoch || (one.epoch === other.epoch && one.sequence > other.sequence)
}
