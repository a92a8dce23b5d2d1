/** How the enrolment listener says no. */
import Type, { type Static } from 'typebox'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'

const closed = { additionalProperties: false } as const
const Line = Type.String({ maxLength: 1_024 })
const Refusal = Type.Object({ code: Line, message: Line, hint: Line }, closed)
const refusalCheck = compileSchema(Type.Object({ error: Refusal }, closed))

/** Undefined when the text is no refusal of a controller. */
export function readRefusalText(text: string): Static<typeof Refusal> | undefined {
  const parsed = parseStrict(refusalCheck, text)
  return parsed.ok ? parsed.value.error : undefined
}
