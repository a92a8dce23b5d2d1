/**
 * The break-glass code, checked on the host. How often it may be tried is on disk: neither a restart nor asking
 * the stopped agent instead of the running one gives more attempts.
 */
import { timingSafeEqual } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import Type from 'typebox'
import { hashBreakGlassCode, parseBreakGlassCode } from '../../../shared/node/break-glass.ts'
import { removeFileDurably, writeFileDurably } from '../../../shared/node/durable-file.ts'
import { compileSchema, parseStrict } from '../../../shared/protocol/parse.ts'
import type { BootClock } from './lease.ts'
import type { IsolationRecord } from './record.ts'

export type CodeAnswer =
  | { readonly kind: 'right' }
  | { readonly kind: 'wrong'; readonly reason: string }
  /** Nothing was compared. */
  | { readonly kind: 'refused'; readonly reason: string }
  | { readonly kind: 'failed'; readonly reason: string }

export const ATTEMPTS_MAX = 5
/** After so many wrong codes nothing is compared for this long. */
export const ATTEMPTS_PAUSE_MS = 60_000

const ATTEMPTS_BYTES_MAX = 1_024
const Attempts = Type.Object(
  {
    wrong: Type.Integer({ minimum: 0, maximum: 1_000_000 }),
    bootId: Type.String({ maxLength: 64 }),
    bootMs: Type.Integer({ minimum: 0 }),
  },
  { additionalProperties: false },
)
const attemptsCheck = compileSchema(Attempts)

export interface CodeTried {
  readonly stateFolder: string
  readonly record: IsolationRecord | null
  readonly code: string
  readonly now: BootClock
}

export function checkBreakGlass({ stateFolder, record, code, now }: CodeTried): CodeAnswer {
  if (record === null || record.stage === 'ended') return refused('this host is not isolated')
  if (record.breakGlassHash === null) return refused('this isolation has no break-glass code')
  const path = join(stateFolder, 'isolation-attempts.json')
  const { wrong, sinceMs } = readAttempts(path, now)
  if (wrong >= ATTEMPTS_MAX && sinceMs < ATTEMPTS_PAUSE_MS) {
    const waitS = Math.ceil((ATTEMPTS_PAUSE_MS - sinceMs) / 1_000)
    return refused(`${ATTEMPTS_MAX} wrong codes were given: try again in ${waitS} s`)
  }
  const bytes = parseBreakGlassCode(code)
  if (bytes === null) return refused('a break-glass code has 26 letters and digits, as in ABCDE-FGHIJ-...')
  const expected = Buffer.from(record.breakGlassHash, 'hex')
  if (timingSafeEqual(Buffer.from(hashBreakGlassCode(bytes), 'hex'), expected)) {
    removeFileDurably(path)
    return { kind: 'right' }
  }
  const counted = (wrong >= ATTEMPTS_MAX ? 0 : wrong) + 1
  writeFileDurably(path, JSON.stringify({ wrong: counted, ...now }), 0o600)
  return { kind: 'wrong', reason: 'a wrong break-glass code was given on the host' }
}

function readAttempts(path: string, now: BootClock): { wrong: number; sinceMs: number } {
  if (!existsSync(path)) return { wrong: 0, sinceMs: 0 }
  const parsed = parseStrict(attemptsCheck, readFileSync(path, 'utf8'), ATTEMPTS_BYTES_MAX)
  // Somebody wrote into it: that gains nothing.
  if (!parsed.ok) return { wrong: ATTEMPTS_MAX, sinceMs: now.bootMs }
  const { wrong, bootId, bootMs } = parsed.value
  return { wrong, sinceMs: bootId === now.bootId ? Math.max(0, now.bootMs - bootMs) : now.bootMs }
}

function refused(reason: string): CodeAnswer {
  return { kind: 'refused', reason }
}
