/** What the scanner child may answer. It is checked as if it were hostile, because it reads what is. */
import Type, { type Static } from 'typebox'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import { REPLY_BYTES_MAX } from './scan-protocol.ts'

const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const Digits = Type.String({ pattern: '^[0-9]{1,20}$' })
const hex = (digits: number) => Type.String({ pattern: `^[0-9a-f]{${digits}}$` })

const Hit = Type.Object(
  {
    ruleId: Type.String({ minLength: 1, maxLength: 128 }),
    ruleName: Type.String({ minLength: 1, maxLength: 256 }),
    description: Type.Union([Type.String({ maxLength: 1_024 }), Type.Null()]),
    severity: Type.Union([Type.String({ maxLength: 16 }), Type.Null()]),
    techniques: Type.Array(Type.String({ minLength: 1, maxLength: 16 }), { maxItems: 16 }),
    strings: Type.Array(Type.Object({ name: Type.String({ maxLength: 64 }), offset: Count }), {
      maxItems: 8,
    }),
  },
  { additionalProperties: false },
)

const Reply = Type.Union([
  Type.Object(
    {
      kind: Type.Literal('ready'),
      engine: Type.Union([Type.Literal('yara-x'), Type.Literal('none')]),
      /** What was left out of the rules. */
      problems: Type.Array(Type.String({ maxLength: 1_024 }), { maxItems: 50 }),
      /** What keeps the child from doing more than reading, for a person. */
      isolation: Type.Array(Type.String({ maxLength: 256 }), { maxItems: 16 }),
    },
    { additionalProperties: false },
  ),
  Type.Object(
    {
      kind: Type.Literal('examined'),
      id: Count,
      /** Size and change time once all was read: other than before, the content changed meanwhile. */
      sizeBytes: Count,
      changedNs: Digits,
      /** Null: the file was too large to hash. */
      hashes: Type.Union([
        Type.Object({ sha256: hex(64), sha1: hex(40), md5: hex(32) }, { additionalProperties: false }),
        Type.Null(),
      ]),
      /** Null: the content is too short, too long or too uniform for one. */
      tlsh: Type.Union([Type.String({ pattern: '^T1[0-9A-F]{70}$' }), Type.Null()]),
      /** Bits per byte; null: the file was too large to read to its end. */
      entropy: Type.Union([Type.Number({ minimum: 0, maximum: 8 }), Type.Null()]),
      /** The first bytes. */
      header: Type.String({ pattern: '^(?:[0-9a-f]{2}){0,32}$' }),
      mimeType: Type.String({ pattern: '^[a-z]{1,16}/[a-z0-9.+-]{1,47}$' }),
      /** Bytes that the rules saw. */
      scannedBytes: Count,
      /** Null: the rules ran to their end. */
      scanProblem: Type.Union([
        Type.Literal('timeout'),
        Type.Literal('failed'),
        Type.Literal('no-engine'),
        Type.Null(),
      ]),
      hits: Type.Array(Hit, { maxItems: 32 }),
    },
    { additionalProperties: false },
  ),
  Type.Object(
    { kind: Type.Literal('unreadable'), id: Count, code: Type.String({ pattern: '^[A-Z0-9_]{1,32}$' }) },
    { additionalProperties: false },
  ),
])
export type ScanReply = Static<typeof Reply>
export type ExaminedReply = Extract<ScanReply, { kind: 'examined' }>

const replySchema = compileSchema(Reply)

/** Null when the text is no reply. */
export function parseReply(text: string): ScanReply | null {
  const parsed = parseStrict(replySchema, text, REPLY_BYTES_MAX)
  return parsed.ok ? parsed.value : null
}
