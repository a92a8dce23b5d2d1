/**
 * Commands: what an operator wants done, to which targets, in the exact bytes that are signed. An intent is
 * signed once for all its targets; each agent gets the intent, its own leaf and the proof that the leaf is
 * under the intent's root. The wrapper says how the controller delivered it.
 *
 * Bytes are the UTF-8 of canonical JSON (`JSON.stringify` in schema order). Verify first, then parse.
 */
import Type, { type Static, type TSchema } from 'typebox'
import { COLLECT_BYTES_MAX, PATH_CHARACTERS_MAX, TARGETS_MAX } from './limits.ts'
import { oneOf } from './one-of.ts'
import { TelemetryLists } from './telemetry-lists.ts'

const closed = { additionalProperties: false } as const
const Hex = (bytes: number) => Type.String({ pattern: `^[0-9a-f]{${bytes * 2}}$` })
const Milliseconds = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const Path = Type.String({ minLength: 1, maxLength: PATH_CHARACTERS_MAX, pattern: '^/' })

/** R reads (the controller's signature is enough); C contains or releases (one operator); D destroys (two). */
export const COMMAND_CLASSES = ['R', 'C', 'D'] as const
export type CommandClass = (typeof COMMAND_CLASSES)[number]

/** A process by what cannot be reused. */
export const ProcessTarget = Type.Object(
  {
    kind: Type.Literal('process'),
    pid: Type.Integer({ minimum: 2, maximum: 4_194_304 }),
    /** Clock ticks since boot, field 22 of /proc/PID/stat. */
    startTicks: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
    bootId: Type.String({ pattern: '^[0-9a-f-]{36}$' }),
    /** Null when the executable was never examined: then the start time and boot alone decide. */
    executableSha256: Type.Union([Hex(32), Type.Null()]),
  },
  closed,
)

/** Exact bytes of a path in base64 when it is not UTF-8. */
const PathBytes = Type.Union([
  Type.String({ maxLength: 6_000, pattern: '^[A-Za-z0-9+/]*={0,2}$' }),
  Type.Null(),
])

/** A file by path, identity and content. */
export const FileTarget = Type.Object(
  {
    kind: Type.Literal('file'),
    path: Path,
    pathBytes: PathBytes,
    device: Type.Union([Type.String({ pattern: '^[0-9]{1,20}$' }), Type.Null()]),
    inode: Type.Union([Type.String({ pattern: '^[0-9]{1,20}$' }), Type.Null()]),
    sha256: Hex(32),
  },
  closed,
)

/** A place to look at; nothing is changed. */
const PathTarget = Type.Object({ kind: Type.Literal('path'), path: Path }, closed)

/** A file in the quarantine of its host, and the place it came from: nowhere else does it go. */
const QuarantinedFileTarget = Type.Object(
  {
    kind: Type.Literal('quarantinedFile'),
    /** The command that quarantined it. */
    quarantineId: Hex(16),
    path: Path,
    pathBytes: PathBytes,
    sha256: Hex(32),
  },
  closed,
)

/** A file that is copied whole to the controller, whatever its content is by now. */
const EvidenceFileTarget = Type.Object(
  { kind: Type.Literal('evidenceFile'), path: Path, pathBytes: PathBytes },
  closed,
)

/** The host itself. */
const HostTarget = Type.Object(
  {
    kind: Type.Literal('host'),
    /** Of the code that ends its isolation on the host itself (shared/node/break-glass.ts); null: there is none. */
    breakGlassHash: Type.Union([Hex(32), Type.Null()]),
  },
  closed,
)

export type ProcessTarget = Static<typeof ProcessTarget>
export type FileTarget = Static<typeof FileTarget>
export type PathTarget = Static<typeof PathTarget>
export type QuarantinedFileTarget = Static<typeof QuarantinedFileTarget>
export type EvidenceFileTarget = Static<typeof EvidenceFileTarget>
export type HostTarget = Static<typeof HostTarget>

export const LEASE_MS_MIN = 60_000
export const LEASE_MS_MAX = 30 * 24 * 3_600_000

/** Every action: its class, its arguments, what it is aimed at. A new action without an entry does not compile. */
export const ACTIONS = {
  killProcess: {
    class: 'C',
    summary: 'End a process, with its descendants when `tree` is set.',
    args: Type.Object({ tree: Type.Boolean() }, closed),
    target: ProcessTarget,
  },
  quarantineFile: {
    class: 'C',
    summary: 'Move a file out of reach into the encrypted quarantine of the host.',
    args: Type.Object({}, closed),
    target: FileTarget,
  },
  restoreFile: {
    class: 'C',
    summary: 'Put a quarantined file back into its place, with owner, mode, times and attributes.',
    args: Type.Object({}, closed),
    target: QuarantinedFileTarget,
  },
  // It only reads. But what it reads may be a private key, so the controller's word is not enough.
  collectFile: {
    class: 'C',
    summary: 'Copy a file to the controller as evidence.',
    args: Type.Object({ bytesMax: Type.Integer({ minimum: 1, maximum: COLLECT_BYTES_MAX }) }, closed),
    target: EvidenceFileTarget,
  },
  scanPath: {
    class: 'R',
    summary: 'Scan a file or folder with the YARA rules and indicators in force.',
    args: Type.Object({ filesMax: Type.Integer({ minimum: 1, maximum: 1_000_000 }) }, closed),
    target: PathTarget,
  },
  isolateHost: {
    class: 'C',
    summary: 'Cut a host off from every network but its controller, until released or `leaseMs` is over.',
    args: Type.Object(
      {
        /** Running time of the host after which isolation ends by itself; null: only a release ends it. */
        leaseMs: Type.Union([Type.Integer({ minimum: LEASE_MS_MIN, maximum: LEASE_MS_MAX }), Type.Null()]),
      },
      closed,
    ),
    target: HostTarget,
  },
  releaseHost: {
    class: 'C',
    summary: 'End the isolation of a host.',
    args: Type.Object({}, closed),
    target: HostTarget,
  },
  // It lowers what is seen: whoever has only the controller must not be able to blind a host.
  setTelemetryLists: {
    class: 'C',
    summary: 'Put lists in force of what a host leaves out and keeps; lists without rules remove them.',
    args: Type.Object({ lists: TelemetryLists }, closed),
    target: HostTarget,
  },
} as const satisfies Record<string, { class: CommandClass; summary: string; args: TSchema; target: TSchema }>

export type ActionName = keyof typeof ACTIONS
export type ActionArgs<Name extends ActionName> = Static<(typeof ACTIONS)[Name]['args']>
export type ActionTarget<Name extends ActionName> = Static<(typeof ACTIONS)[Name]['target']>

/** What the operators sign. `args` is checked against the action's own schema after this one. */
export const Intent = Type.Object(
  {
    v: Type.Literal(1),
    fleet: Type.String({ pattern: '^[0-9a-f]{32}$' }),
    intentId: Hex(16),
    class: oneOf(COMMAND_CLASSES),
    action: oneOf(Object.keys(ACTIONS) as ActionName[]),
    args: Type.Record(Type.String({ maxLength: 64 }), Type.Unknown(), { maxProperties: 32 }),
    /** For the audit log; a person reads it before signing. */
    reason: Type.String({ minLength: 1, maxLength: 1_024 }),
    incident: Type.Union([Type.String({ maxLength: 64 }), Type.Null()]),
    notBefore: Milliseconds,
    expires: Milliseconds,
    targetsRoot: Hex(32),
    targetsCount: Type.Integer({ minimum: 1, maximum: TARGETS_MAX }),
  },
  closed,
)
export type Intent = Static<typeof Intent>

/** One target under an intent. */
export const Leaf = Type.Object(
  {
    commandId: Hex(16),
    agentId: Hex(16),
    /** SHA-256 of the DER SubjectPublicKeyInfo in the agent's certificate at the time of signing. */
    agentKeyFingerprint: Hex(32),
    target: Type.Union([
      ProcessTarget,
      FileTarget,
      QuarantinedFileTarget,
      EvidenceFileTarget,
      PathTarget,
      HostTarget,
    ]),
  },
  closed,
)
export type Leaf = Static<typeof Leaf>

/** How the controller delivered it. (epoch, sequence, commandId) is committed by the agent before execution. */
export const Wrapper = Type.Object(
  {
    v: Type.Literal(1),
    commandId: Hex(16),
    /** SHA-256 of the intent's bytes and of the leaf's bytes: a wrapper fits one command alone. */
    intentHash: Hex(32),
    leafHash: Hex(32),
    /** Raised when a controller is restored from a backup. */
    epoch: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
    /** Strictly rising per agent within an epoch. */
    sequence: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
    /** The agent's nonce of this connection; null for a command that waited in the queue. */
    sessionNonce: Type.Union([Hex(16), Type.Null()]),
    issued: Milliseconds,
    keysetVersion: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
  },
  closed,
)
export type Wrapper = Static<typeof Wrapper>

/** Who may sign what. Signed by the offline root; the agent keeps the highest version it has seen. */
export const Keyset = Type.Object(
  {
    v: Type.Literal(1),
    fleet: Type.String({ pattern: '^[0-9a-f]{32}$' }),
    version: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
    issued: Milliseconds,
    expires: Milliseconds,
    operators: Type.Array(
      Type.Object(
        {
          keyId: Hex(32),
          kind: Type.Literal('ed25519'),
          /** Raw 32-byte Ed25519 public key. */
          publicKey: Hex(32),
          name: Type.String({ minLength: 1, maxLength: 128 }),
          classes: Type.Array(Type.Union([Type.Literal('C'), Type.Literal('D')]), {
            minItems: 1,
            maxItems: 2,
          }),
        },
        closed,
      ),
      { maxItems: 256 },
    ),
    /** Distinct operators needed per class; a fleet of one may set D to 1. */
    thresholds: Type.Object(
      { C: Type.Integer({ minimum: 1, maximum: 8 }), D: Type.Integer({ minimum: 1, maximum: 8 }) },
      closed,
    ),
    /** Keys with which the controller signs wrappers, and class R intents. */
    controllers: Type.Array(Type.Object({ keyId: Hex(32), publicKey: Hex(32) }, closed), {
      minItems: 1,
      maxItems: 16,
    }),
  },
  closed,
)
export type Keyset = Static<typeof Keyset>

/** Domain prefixes of every signature: bytes signed for one purpose are worth nothing for another. */
export const SIGNATURE_DOMAINS = {
  intent: 'cordon/intent/v1\0',
  wrapper: 'cordon/wrapper/v1\0',
  keyset: 'cordon/keyset/v1\0',
} as const

/** Queued commands expire after this unless the intent says otherwise. */
export const COMMAND_TTL_MS_DEFAULT = 15 * 60_000
export const COMMAND_TTL_MS_MAX = 24 * 3_600_000
