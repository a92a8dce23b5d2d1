/**
 * The one way in for JSON texts from the wire. A text is measured, scanned for depth, parsed, held against a
 * closed schema and compared with its own canonical form; whatever comes, nothing here throws.
 *
 * The canonical form is `JSON.stringify` of the parsed value. Comparing with it refuses in one step what
 * parsers disagree about: duplicate keys, integers past 2^53, needless escapes, white space, numbers such as
 * `1e3`. Two programs that accept the same text therefore read the same value from it.
 */
import type { Static, TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import { type CordonEvent, EVENT_SCHEMAS } from '../events/event.ts'
import { CONTROL_BYTES_MAX, EVENT_BYTES_MAX, JSON_DEPTH_MAX } from './limits.ts'
import { AGENT_MESSAGES, type AgentMessage, CONTROLLER_MESSAGES, type ControllerMessage } from './messages.ts'

export interface ParseError {
  readonly kind: 'tooLong' | 'tooDeep' | 'notJson' | 'notCanonical' | 'unknownKind' | 'invalid'
  /** For logs and for the person who reads them; never holds the text itself. */
  readonly reason: string
  /** JSON pointer to what was refused, where there is one. */
  readonly path?: string
}

export type ParseResult<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly error: ParseError }

/** A compiled schema. */
export interface SchemaCheck<Value> {
  Check(value: unknown): value is Value
  Errors(value: unknown): readonly { readonly instancePath: string; readonly message: string }[]
}

/**
 * Compiles a schema for `parseStrict`, when it is first asked: a program knows many schemas and meets few of them
 * in its first second, and compiling them all took longer than anything else in the start of a command.
 */
export function compileSchema<Schema extends TSchema>(schema: Schema): SchemaCheck<Static<Schema>> {
  let compiled: SchemaCheck<Static<Schema>> | undefined
  const use = () => {
    compiled ??= Compile(schema) as unknown as SchemaCheck<Static<Schema>>
    return compiled
  }
  const check = (value: unknown): value is Static<Schema> => use().Check(value)
  const errors = (value: unknown) => use().Errors(value)
  return { Check: check, Errors: errors }
}

/** Parses one canonical JSON text of at most `bytesMax` UTF-8 bytes into a value of the schema. */
export function parseStrict<Value>(
  check: SchemaCheck<Value>,
  text: string,
  bytesMax = CONTROL_BYTES_MAX,
): ParseResult<Value> {
  const parsed = parseJson(text, bytesMax)
  return parsed.ok ? validate(check, parsed.value, text) : parsed
}

type MessageTable = typeof AGENT_MESSAGES | typeof CONTROLLER_MESSAGES
type MessageOf<Table extends MessageTable> = Table extends typeof AGENT_MESSAGES
  ? AgentMessage
  : ControllerMessage

const agentChecks = compileTable(AGENT_MESSAGES)
const controllerChecks = compileTable(CONTROLLER_MESSAGES)
const eventChecks = compileTable(EVENT_SCHEMAS)

/** Parses a control message that the given side may send, told apart by its `kind`. */
export function parseMessage<Table extends MessageTable>(
  table: Table,
  text: string,
): ParseResult<MessageOf<Table>> {
  const checks = (table as MessageTable) === AGENT_MESSAGES ? agentChecks : controllerChecks
  return parseByTag(checks, 'kind', text, CONTROL_BYTES_MAX) as ParseResult<MessageOf<Table>>
}

/** Parses one event body, told apart by its `event.action`. */
export function parseEvent(text: string): ParseResult<CordonEvent> {
  return parseByTag(eventChecks, 'event.action', text, EVENT_BYTES_MAX) as ParseResult<CordonEvent>
}

function compileTable(table: Readonly<Record<string, TSchema>>): ReadonlyMap<string, SchemaCheck<unknown>> {
  return new Map(Object.entries(table).map(([tag, schema]) => [tag, compileClosed(schema)]))
}

/**
 * As `compileSchema`, for a closed object: the compiler holds every key against one long expression, and a set
 * answers the same for less. Any other schema is compiled as it is.
 */
function compileClosed(schema: TSchema): SchemaCheck<unknown> {
  const whole = compileSchema(schema)
  if (!isClosedObject(schema)) return whole
  const known = new Set(Object.keys(schema.properties))
  const fields = compileSchema({ ...schema, additionalProperties: true } as TSchema)
  const check = (value: unknown): value is unknown => {
    if (!fields.Check(value)) return false
    for (const key of Object.keys(value as object)) if (!known.has(key)) return false
    return true
  }
  return { Check: check, Errors: whole.Errors }
}

function isClosedObject(schema: TSchema): schema is TSchema & { readonly properties: object } {
  const { type, properties, patternProperties, additionalProperties } = schema as Record<string, unknown>
  const isPlain = type === 'object' && typeof properties === 'object' && patternProperties === undefined
  return isPlain && additionalProperties === false
}

function parseByTag(
  checks: ReadonlyMap<string, SchemaCheck<unknown>>,
  tagField: string,
  text: string,
  bytesMax: number,
): ParseResult<unknown> {
  const parsed = parseJson(text, bytesMax)
  if (!parsed.ok) return parsed
  const value = parsed.value
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return refused('invalid', 'the text is not a JSON object', '')
  }
  const tag = Object.hasOwn(value, tagField) ? (value as Record<string, unknown>)[tagField] : undefined
  const check = typeof tag === 'string' ? checks.get(tag) : undefined
  if (!check) {
    const shown = typeof tag === 'string' ? JSON.stringify(tag.slice(0, 64)) : `of type ${typeof tag}`
    return refused('unknownKind', `${tagField} ${shown} is not known here`, `/${tagField}`)
  }
  return validate(check, value, text)
}

function parseJson(text: string, bytesMax: number): ParseResult<unknown> {
  if (typeof text !== 'string') return refused('notJson', 'not a text')
  if (exceedsUtf8Bytes(text, bytesMax)) return refused('tooLong', `longer than ${bytesMax} bytes`)
  // Before JSON.parse: 40 KB of brackets parse well, and then overflow the stack of whatever walks the value.
  if (exceedsDepth(text)) return refused('tooDeep', `nested deeper than ${JSON_DEPTH_MAX}`)
  try {
    return { ok: true, value: JSON.parse(text) as unknown }
  } catch {
    return refused('notJson', 'not JSON')
  }
}

function validate<Value>(check: SchemaCheck<Value>, value: unknown, text: string): ParseResult<Value> {
  // In canonical JSON a quote inside a string is escaped, so this can only be a key. Records with free keys
  // would let it through.
  if (text.includes('"__proto__":')) return refused('notCanonical', 'the key __proto__ is not allowed')
  if (!check.Check(value)) return describeMismatch(check, value)
  if (JSON.stringify(value) !== text) {
    return refused('notCanonical', 'not canonical: duplicate keys, white space, escapes or numbers')
  }
  return { ok: true, value }
}

function describeMismatch(check: SchemaCheck<unknown>, value: unknown): ParseResult<never> {
  const first = check.Errors(value)[0]
  return refused(
    'invalid',
    (first?.message ?? 'does not match its schema').slice(0, 256),
    first?.instancePath.slice(0, 256),
  )
}

function refused(kind: ParseError['kind'], reason: string, path?: string): ParseResult<never> {
  return { ok: false, error: path === undefined ? { kind, reason } : { kind, reason, path } }
}

const quote = 0x22
const backslash = 0x5c
const bracketOpen = 0x5b
const bracketClose = 0x5d
const braceOpen = 0x7b
const braceClose = 0x7d

/** Whether a JSON text nests deeper than `JSON_DEPTH_MAX`, seen without parsing it. */
export function exceedsDepth(text: string): boolean {
  return hasBracketsForDepth(text) && nestsDeeper(text)
}

/** False for most texts: with so few opening brackets in all, inside strings or not, none can nest too deep. */
function hasBracketsForDepth(text: string): boolean {
  let left = JSON_DEPTH_MAX
  for (const bracket of ['{', '[']) {
    for (let at = text.indexOf(bracket); at >= 0; at = text.indexOf(bracket, at + 1)) {
      if (left === 0) return true
      left -= 1
    }
  }
  return false
}

function nestsDeeper(text: string): boolean {
  let depth = 0
  let inString = false
  for (let index = 0; index < text.length; index += 1) {
    const unit = text.charCodeAt(index)
    if (inString) {
      if (unit === backslash) index += 1
      else if (unit === quote) inString = false
    } else if (unit === quote) {
      inString = true
    } else if (unit === braceOpen || unit === bracketOpen) {
      depth += 1
      if (depth > JSON_DEPTH_MAX) return true
    } else if (unit === braceClose || unit === bracketClose) {
      depth -= 1
    }
  }
  return false
}

/** A UTF-16 unit takes one to three bytes of UTF-8, so most texts need no counting. */
export function exceedsUtf8Bytes(text: string, bytesMax: number): boolean {
  if (text.length > bytesMax) return true
  if (text.length * 3 <= bytesMax) return false
  let bytes = 0
  for (let index = 0; index < text.length; index += 1) {
    const unit = text.charCodeAt(index)
    // Each half of a surrogate pair accounts for two of its four bytes.
    if (unit < 0x80) bytes += 1
    else if (unit < 0x800 || (unit >= 0xd800 && unit <= 0xdfff)) bytes += 2
    else bytes += 3
  }
  return bytes > bytesMax
}
