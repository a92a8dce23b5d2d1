/**
 * The durable record of isolation: written before anything is cut, and read at every start. What it says decides
 * over what is found in the kernel; a boot takes the kernel's rules, and never the record.
 */
import { existsSync, readFileSync, renameSync, statSync } from 'node:fs'
import { join } from 'node:path'
import Type, { type Static } from 'typebox'
import { removeFileDurably, writeFileDurably } from '../../../shared/node/durable-file.ts'
import { LEASE_MS_MAX } from '../../../shared/protocol/commands.ts'
import { oneOf } from '../../../shared/protocol/one-of.ts'
import { compileSchema, parseStrict } from '../../../shared/protocol/parse.ts'

const closed = { additionalProperties: false } as const
const Milliseconds = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const Hex = (bytes: number) => Type.String({ pattern: `^[0-9a-f]{${bytes * 2}}$` })
const BootId = Type.String({ maxLength: 64 })

const ENDINGS = ['unreachable', 'command', 'lease', 'breakGlass', 'failed'] as const
export const CONTROLLERS_MAX = 16
const DEVICES_MAX = 4_096

/** What is left of a lease, measured in running time of the host. */
export const Lease = Type.Object(
  {
    remainingMs: Type.Integer({ minimum: 0, maximum: LEASE_MS_MAX }),
    /** When it was measured: milliseconds since that boot (CLOCK_BOOTTIME, with the time asleep). */
    bootId: BootId,
    bootMs: Milliseconds,
  },
  closed,
)
export type Lease = Static<typeof Lease>

const IsolationRecord = Type.Object(
  {
    v: Type.Literal(1),
    commandId: Hex(16),
    /** `ended`: nothing may be in force any more, and its end may still have to be told. */
    stage: Type.Union([Type.Literal('unconfirmed'), Type.Literal('confirmed'), Type.Literal('ended')]),
    controllers: Type.Array(
      Type.Object(
        {
          address: Type.String({ pattern: '^[0-9a-fA-F:.]{2,45}$' }),
          port: Type.Integer({ minimum: 1, maximum: 65_535 }),
        },
        closed,
      ),
      { minItems: 1, maxItems: CONTROLLERS_MAX },
    ),
    breakGlassHash: Type.Union([Hex(32), Type.Null()]),
    lease: Type.Union([Lease, Type.Null()]),
    appliedMs: Milliseconds,
    /** Of the boot in which it was applied, for the time that an unconfirmed one has left. */
    bootId: BootId,
    appliedBootMs: Milliseconds,
    /** Where it was put in force last, such as `net:[4026531840]`. */
    networkNamespace: Type.String({ maxLength: 64 }),
    /** Devices that were there: after a boot they may appear later than the rules. */
    devices: Type.Array(Type.String({ maxLength: 15 }), { maxItems: DEVICES_MAX }),
    /** Why it ended, once it has. */
    ending: Type.Union([
      Type.Object(
        {
          reason: Type.String({ maxLength: 1_024 }),
          how: oneOf(ENDINGS),
        },
        closed,
      ),
      Type.Null(),
    ]),
  },
  closed,
)
export type IsolationRecord = Static<typeof IsolationRecord>
export type EndingHow = (typeof ENDINGS)[number]

export type RecordRead =
  | { readonly kind: 'none' }
  | { readonly kind: 'record'; readonly record: IsolationRecord }
  | { readonly kind: 'damaged'; readonly reason: string }

const RECORD_BYTES_MAX = 256 * 1024
const check = compileSchema(IsolationRecord)

export const recordPath = (stateFolder: string) => join(stateFolder, 'isolation.json')

/** Changes nothing. */
export function readRecord(stateFolder: string): RecordRead {
  const path = recordPath(stateFolder)
  if (!existsSync(path)) return { kind: 'none' }
  const text = statSync(path).size > RECORD_BYTES_MAX ? '' : readFileSync(path, 'utf8')
  const parsed = parseStrict(check, text, RECORD_BYTES_MAX)
  if (parsed.ok) return { kind: 'record', record: parsed.value }
  return { kind: 'damaged', reason: `the record of isolation cannot be read: ${parsed.error.reason}` }
}

/** Whether rules that are found in the kernel stay there while no agent runs. */
export function recordKeepsRules(stateFolder: string): boolean {
  const read = readRecord(stateFolder)
  return read.kind === 'damaged' || (read.kind === 'record' && read.record.stage !== 'ended')
}

/** Out of the way of the next one, and kept for whoever wants to know what was in it. */
export function setRecordAside(stateFolder: string): void {
  const path = recordPath(stateFolder)
  renameSync(path, `${path}.damaged`)
}

export function writeRecord(stateFolder: string, record: IsolationRecord): void {
  writeFileDurably(
    recordPath(stateFolder),
    JSON.stringify({ ...record, devices: record.devices.slice(0, DEVICES_MAX) }),
    0o600,
  )
}

export function removeRecord(stateFolder: string): void {
  removeFileDurably(recordPath(stateFolder))
}
