/**
 * The telemetry lists of this host on disk: which they are and the command that brought them. The file says it;
 * whether it is believed is for the journal to say, which knows what operators signed.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import Type, { type Static } from 'typebox'
import { removeFileDurably, writeFileDurably } from '../../shared/node/durable-file.ts'
import { TELEMETRY_LISTS_BYTES_MAX } from '../../shared/protocol/limits.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import { canonicalTelemetryLists, TelemetryLists } from '../../shared/protocol/telemetry-lists.ts'
import { errorCode } from './action.ts'

const TelemetryRecord = Type.Object(
  {
    v: Type.Literal(1),
    /** The command that put them in force. */
    commandId: Type.String({ pattern: '^[0-9a-f]{32}$' }),
    lists: TelemetryLists,
  },
  { additionalProperties: false },
)
type TelemetryRecord = Static<typeof TelemetryRecord>

export type TelemetryRecordRead =
  | { readonly kind: 'none' }
  | { readonly kind: 'record'; readonly record: TelemetryRecord }
  | { readonly kind: 'damaged'; readonly reason: string }

/** The lists, and a little around them. */
const RECORD_BYTES_MAX = TELEMETRY_LISTS_BYTES_MAX + 1_024
const check = compileSchema(TelemetryRecord)

export const telemetryRecordPath = (stateFolder: string) => join(stateFolder, 'telemetry-lists.json')

/** Changes nothing, and never throws. */
export function readTelemetryRecord(stateFolder: string): TelemetryRecordRead {
  const damaged = (reason: string): TelemetryRecordRead => ({
    kind: 'damaged',
    reason: `the file of the telemetry lists cannot be read: ${reason}`,
  })
  try {
    const text = readBounded(telemetryRecordPath(stateFolder))
    if (text === null) return damaged('it is no file of the size that it can have')
    const parsed = parseStrict(check, text, RECORD_BYTES_MAX)
    return parsed.ok ? { kind: 'record', record: parsed.value } : damaged(parsed.error.reason)
  } catch (error) {
    const code = errorCode(error)
    return code === 'ENOENT' ? { kind: 'none' } : damaged(code)
  }
}

/** Written whole and under a new name before it takes the place of the one before. Throws when it cannot. */
export function writeTelemetryRecord(stateFolder: string, commandId: string, lists: TelemetryLists): void {
  const canonical = JSON.parse(canonicalTelemetryLists(lists)) as TelemetryLists
  const record: TelemetryRecord = { v: 1, commandId, lists: canonical }
  writeFileDurably(telemetryRecordPath(stateFolder), JSON.stringify(record), 0o600)
}

export function removeTelemetryRecord(stateFolder: string): void {
  removeFileDurably(telemetryRecordPath(stateFolder))
}

/** Out of the way, and kept for whoever wants to know what was in it. */
export function setTelemetryRecordAside(stateFolder: string): void {
  const path = telemetryRecordPath(stateFolder)
  renameSync(path, `${path}.damaged`)
}

/** Null: it is no plain file, or too large. Links and pipes in its place are not followed or waited for. */
function readBounded(path: string): string | null {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    const found = fstatSync(fd)
    return found.isFile() && found.size <= RECORD_BYTES_MAX ? readFileSync(fd, 'utf8') : null
  } finally {
    closeSync(fd)
  }
}
