/**
 * The messages between agent and controller over the mTLS websocket. Control messages are JSON text frames;
 * an event batch is one binary frame (batch.ts). Unknown kinds and unknown fields are refused. Who is
 * speaking comes from the certificate alone: no message carries the sender's identity.
 */
import Type, { type Static } from 'typebox'
import {
  BATCH_BYTES_MAX,
  BATCH_ROWS_MAX,
  COLLECT_BYTES_MAX,
  CREDITS_MAX,
  CSR_BYTES_MAX,
  FILE_CHUNK_BYTES_MAX,
  INTENT_BYTES_MAX,
  KEYSET_BYTES_MAX,
  PATH_CHARACTERS_MAX,
  PROOF_HASHES_MAX,
  SIGNATURES_MAX,
} from './limits.ts'
import { oneOf } from './one-of.ts'

const closed = { additionalProperties: false } as const
const Hex = (bytes: number) => Type.String({ pattern: `^[0-9a-f]{${bytes * 2}}$` })
const Base64 = (bytesMax: number) =>
  Type.String({ maxLength: Math.ceil(bytesMax / 3) * 4, pattern: '^[A-Za-z0-9+/]*={0,2}$' })
const Sequence = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const Text = (charactersMax = 256) => Type.String({ maxLength: charactersMax })
const EventClassSchema = Type.Integer({ minimum: 0, maximum: 3 })

const StreamId = Hex(16)
const CommandId = Hex(16)

/** An Ed25519 signature and the key that made it; the key id is the SHA-256 of the raw public key. */
export const Signature = Type.Object({ keyId: Hex(32), signature: Hex(64) }, closed)
export type Signature = Static<typeof Signature>

export const Inventory = Type.Object(
  {
    hostName: Text(),
    operatingSystem: Text(),
    operatingSystemVersion: Text(),
    kernel: Text(),
    architecture: Text(32),
    cpuModel: Text(),
    cpuCount: Type.Integer({ minimum: 0, maximum: 65_536 }),
    memoryBytes: Sequence,
    addresses: Type.Array(Text(64), { maxItems: 64 }),
  },
  closed,
)
export type Inventory = Static<typeof Inventory>

/** First message of an agent; nothing else is accepted before it. */
const Hello = Type.Object(
  {
    kind: Type.Literal('hello'),
    protocolVersion: Type.Integer({ minimum: 1, maximum: 65_535 }),
    agentVersion: Text(32),
    bootId: Text(64),
    /** Random per connection; live command wrappers repeat it, so replay needs no clock. */
    sessionNonce: Hex(16),
    keysetVersion: Sequence,
    /** What the buffer holds: per class the newest sequence, and the oldest that can still be sent. */
    streamId: StreamId,
    watermarks: Type.Array(
      Type.Object(
        { class: EventClassSchema, first: Sequence, last: Sequence, acknowledged: Sequence },
        closed,
      ),
      { maxItems: 4 },
    ),
    inventory: Inventory,
  },
  closed,
)

export const SensorStatus = Type.Object(
  {
    name: Text(64),
    inForce: Type.Boolean(),
    /** Why it is in force or why it cannot be. */
    reason: Text(512),
    seen: Sequence,
    lost: Sequence,
  },
  closed,
)
export type SensorStatus = Static<typeof SensorStatus>

const ISOLATION_STATES = ['off', 'unconfirmed', 'confirmed'] as const
/** Whether the host is cut off, and whether it could be. */
export const IsolationStatus = Type.Object(
  {
    possible: Type.Boolean(),
    /** What makes it possible, or what hinders it and how to mend that. */
    reason: Text(512),
    /** `unconfirmed`: in force, and rolled back unless the controller is reached within a minute. */
    state: oneOf(ISOLATION_STATES),
    /** Of the command that put it in force. */
    commandId: Type.Union([CommandId, Type.Null()]),
    /** RFC 3339, UTC, by the host's clock. */
    since: Type.Union([Text(32), Type.Null()]),
    /** When it ends by itself if the host runs until then. */
    leaseEnds: Type.Union([Text(32), Type.Null()]),
  },
  closed,
)
export type IsolationStatus = Static<typeof IsolationStatus>

/** Health, each minute and on change; `cordon-agent status` shows the same. */
const Status = Type.Object(
  {
    kind: Type.Literal('status'),
    sensors: Type.Array(SensorStatus, { maxItems: 16 }),
    bufferedRows: Sequence,
    bufferedBytes: Sequence,
    droppedRows: Sequence,
    scanner: Type.Object(
      { scanned: Sequence, skipped: Sequence, restarts: Sequence, queued: Sequence },
      closed,
    ),
    residentBytes: Sequence,
    certificateExpires: Text(32),
    isolation: IsolationStatus,
  },
  closed,
)

const RenewalRequest = Type.Object(
  { kind: Type.Literal('renewalRequest'), csrPem: Text(CSR_BYTES_MAX) },
  closed,
)

/** Last message of an agent that is stopped in order: it is told apart from one that falls silent. */
const Stopping = Type.Object({ kind: Type.Literal('stopping'), reason: Text(512) }, closed)

/** The agent keeps a keyset only when its version is higher than the one it has and the root signed it. */
const KeysetRequest = Type.Object({ kind: Type.Literal('keysetRequest') }, closed)

const Nanoseconds = Type.String({ pattern: '^-?[0-9]{1,24}$' })
const FileBytes = Type.Integer({ minimum: 0, maximum: COLLECT_BYTES_MAX })

/**
 * A file that a command asked for is ready on the host. The controller answers from where on it wants the bytes;
 * after every break of the connection the agent offers anew. Times in nanoseconds since 1970.
 */
const FileOffer = Type.Object(
  {
    kind: Type.Literal('fileOffer'),
    commandId: CommandId,
    path: Type.String({ minLength: 1, maxLength: PATH_CHARACTERS_MAX, pattern: '^/' }),
    pathBytes: Type.Union([
      Type.String({ maxLength: 6_000, pattern: '^[A-Za-z0-9+/]*={0,2}$' }),
      Type.Null(),
    ]),
    sizeBytes: FileBytes,
    sha256: Hex(32),
    device: Type.String({ pattern: '^[0-9]{1,20}$' }),
    inode: Type.String({ pattern: '^[0-9]{1,20}$' }),
    mode: Type.Integer({ minimum: 0, maximum: 0o177777 }),
    userId: Type.Integer({ minimum: 0, maximum: 2 ** 32 }),
    groupId: Type.Integer({ minimum: 0, maximum: 2 ** 32 }),
    links: Type.Integer({ minimum: 0, maximum: 2 ** 32 }),
    accessedNs: Nanoseconds,
    modifiedNs: Nanoseconds,
    changedNs: Nanoseconds,
    bornNs: Nanoseconds,
    /** Milliseconds since 1970 on the host's clock. */
    copiedMs: Sequence,
    /** Somebody wrote to it during the copy: beginning and end may be of different moments. */
    changedWhileRead: Type.Boolean(),
  },
  closed,
)
export type FileOffer = Static<typeof FileOffer>

/** Header of the binary frame of one piece of an offered file, built like that of a batch (batch.ts). */
export const FileChunkHeader = Type.Object(
  {
    kind: Type.Literal('fileChunk'),
    commandId: CommandId,
    offset: FileBytes,
    /** Bytes of the payload before compression. */
    payloadBytes: Type.Integer({ minimum: 1, maximum: FILE_CHUNK_BYTES_MAX }),
    /** Of the payload before compression. */
    sha256: Hex(32),
  },
  closed,
)
export type FileChunkHeader = Static<typeof FileChunkHeader>

/** Header of the binary frame: `[u16 big-endian header length][header JSON][zstd payload]`. */
export const BatchHeader = Type.Object(
  {
    kind: Type.Literal('eventBatch'),
    streamId: StreamId,
    class: EventClassSchema,
    firstSequence: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
    rows: Type.Integer({ minimum: 1, maximum: BATCH_ROWS_MAX }),
    /** Bytes of the payload before compression: rows of `[u32 big-endian length][body]`. */
    payloadBytes: Type.Integer({ minimum: 5, maximum: BATCH_BYTES_MAX + 4 * BATCH_ROWS_MAX }),
    /** Hash chain before the first row and after the last: `h(n) = SHA-256(h(n-1) || body(n))`. */
    previousHash: Hex(32),
    lastHash: Hex(32),
  },
  closed,
)
export type BatchHeader = Static<typeof BatchHeader>

const Welcome = Type.Object(
  {
    kind: Type.Literal('welcome'),
    protocolVersion: Type.Integer({ minimum: 1, maximum: 65_535 }),
    agentId: Hex(16),
    /** Batches that may be unacknowledged at once. */
    credits: Type.Integer({ minimum: 1, maximum: CREDITS_MAX }),
    /** Last sequence stored per class of this stream; the agent sends from the next one. */
    watermarks: Type.Array(Type.Object({ class: EventClassSchema, sequence: Sequence }, closed), {
      maxItems: 4,
    }),
    keysetVersion: Sequence,
    /** The agent renews its certificate at once: it was told apart from a clone, whose copy ends with this. */
    renew: Type.Optional(Type.Literal(true)),
  },
  closed,
)

/** Everything of this stream and class up to `sequence` is committed to disk. Returns one credit. */
const Acknowledgement = Type.Object(
  { kind: Type.Literal('acknowledgement'), streamId: StreamId, class: EventClassSchema, sequence: Sequence },
  closed,
)

const BATCH_REFUSALS = ['malformed', 'gap', 'hashMismatch', 'invalidEvent', 'storeFailed'] as const
/** The batch was not stored. Returns one credit; the agent sends it again, at most three times. */
const BatchRefused = Type.Object(
  {
    kind: Type.Literal('batchRefused'),
    streamId: StreamId,
    class: EventClassSchema,
    firstSequence: Sequence,
    /** What the controller expects next. */
    expectedSequence: Sequence,
    code: oneOf(BATCH_REFUSALS),
    reason: Text(512),
  },
  closed,
)

/** One signed command: what was wanted (intent, leaf, proof) and how it was delivered (wrapper). */
export const Command = Type.Object(
  {
    kind: Type.Literal('command'),
    /** Exact bytes of the intent (commands.ts), over which the operators signed. */
    intent: Base64(INTENT_BYTES_MAX),
    signatures: Type.Array(Signature, { maxItems: SIGNATURES_MAX }),
    /** Exact bytes of this agent's leaf, its index and the hashes that lead to the intent's root. */
    leaf: Base64(8 * 1024),
    leafIndex: Type.Integer({ minimum: 0, maximum: 16_383 }),
    leafCount: Type.Integer({ minimum: 1, maximum: 16_384 }),
    proof: Type.Array(Hex(32), { maxItems: PROOF_HASHES_MAX }),
    /** Exact bytes of the wrapper and the controller's signature over them. */
    wrapper: Base64(2 * 1024),
    wrapperSignature: Signature,
  },
  closed,
)
export type Command = Static<typeof Command>

/** The agent drops a command that it has not applied yet; it answers with the command's state. */
const CancelCommand = Type.Object({ kind: Type.Literal('cancelCommand'), commandId: CommandId }, closed)

const KeysetMessage = Type.Object(
  { kind: Type.Literal('keyset'), keyset: Base64(KEYSET_BYTES_MAX), rootSignature: Base64(1024) },
  closed,
)

const RenewedCertificate = Type.Object(
  { kind: Type.Literal('renewedCertificate'), certificateChainPem: Text(32 * 1024) },
  closed,
)

/** Everything before `offset` is on the controller's disk. `complete`: all of it, with the hash that was offered. */
const FileProgress = Type.Object(
  {
    kind: Type.Literal('fileProgress'),
    commandId: CommandId,
    offset: FileBytes,
    complete: Type.Boolean(),
  },
  closed,
)

const FILE_REFUSALS = [
  'unassigned',
  'ended',
  'otherOffer',
  'tooLarge',
  'noRoom',
  'wrongOffset',
  'hashMismatch',
  'failed',
  'busy',
] as const
/** The controller does not take the file, and keeps nothing of it. `busy` alone passes: the agent offers again later. */
const FileRefused = Type.Object(
  {
    kind: Type.Literal('fileRefused'),
    commandId: CommandId,
    code: oneOf(FILE_REFUSALS),
    reason: Text(512),
  },
  closed,
)

const GOODBYE_CODES = [
  'protocolVersion',
  'revoked',
  'malformed',
  'limit',
  'overloaded',
  'replaced',
  'shutdown',
  /** Two hosts use this identity: neither is heard until a person has looked. The agent goes on buffering. */
  'held',
] as const
/** Last message before the controller closes. */
const Goodbye = Type.Object(
  {
    kind: Type.Literal('goodbye'),
    code: oneOf(GOODBYE_CODES),
    reason: Text(512),
    retryAfterMs: Type.Integer({ minimum: 0, maximum: 3_600_000 }),
  },
  closed,
)

/** Control messages from agent to controller, by kind. */
export const AGENT_MESSAGES = {
  hello: Hello,
  status: Status,
  renewalRequest: RenewalRequest,
  keysetRequest: KeysetRequest,
  stopping: Stopping,
  fileOffer: FileOffer,
} as const

/** Control messages from controller to agent, by kind. */
export const CONTROLLER_MESSAGES = {
  welcome: Welcome,
  acknowledgement: Acknowledgement,
  batchRefused: BatchRefused,
  fileProgress: FileProgress,
  fileRefused: FileRefused,
  command: Command,
  cancelCommand: CancelCommand,
  keyset: KeysetMessage,
  renewedCertificate: RenewedCertificate,
  goodbye: Goodbye,
} as const

export type AgentMessage = {
  [K in keyof typeof AGENT_MESSAGES]: Static<(typeof AGENT_MESSAGES)[K]>
}[keyof typeof AGENT_MESSAGES]
export type ControllerMessage = {
  [K in keyof typeof CONTROLLER_MESSAGES]: Static<(typeof CONTROLLER_MESSAGES)[K]>
}[keyof typeof CONTROLLER_MESSAGES]

/** Body of `POST /v1/enrol` on the enrolment listener (TLS, no client certificate; the token is the proof). */
export const EnrolmentRequest = Type.Object(
  {
    protocolVersion: Type.Integer({ minimum: 1, maximum: 65_535 }),
    /** Token id and its 256-bit secret. */
    tokenId: Hex(8),
    tokenSecret: Hex(32),
    csrPem: Text(CSR_BYTES_MAX),
    inventory: Inventory,
  },
  closed,
)
export const EnrolmentResponse = Type.Object(
  {
    agentId: Hex(16),
    certificateChainPem: Text(32 * 1024),
    rootPem: Text(8 * 1024),
    gatewayUrl: Text(512),
    /** The name in the controller's certificate; the agent checks it whatever address it dials. */
    serverName: Text(253),
    fleet: Text(64),
    keyset: Base64(KEYSET_BYTES_MAX),
    keysetRootSignature: Base64(1024),
  },
  closed,
)

/** Answer to `GET /v1/renew-expired`: what the proof of the old key has to be over, for a few minutes. */
export const ExpiredRenewalNonce = Type.Object({ nonce: Hex(56) }, closed)
/**
 * Body of `POST /v1/renew-expired`, where an agent whose certificate ran out while it was away asks for another.
 * A person approves it; until then the answer is `pending`, and the agent asks again with a fresh nonce.
 */
export const ExpiredRenewalRequest = Type.Object(
  {
    protocolVersion: Type.Integer({ minimum: 1, maximum: 65_535 }),
    nonce: Hex(56),
    /** The certificate that ran out, and what leads to the root. */
    certificateChainPem: Text(8 * 1024),
    /** For a new key. */
    csrPem: Text(2 * 1024),
    /** By the old key, over nonce and request (shared/node/renewal-proof.ts). */
    signature: Base64(128),
  },
  closed,
)
export const ExpiredRenewalAnswer = Type.Union([
  Type.Object(
    {
      state: Type.Literal('pending'),
      retryAfterMs: Type.Integer({ minimum: 1_000, maximum: 3_600_000 }),
    },
    closed,
  ),
  Type.Object({ state: Type.Literal('renewed'), certificateChainPem: Text(32 * 1024) }, closed),
])
export type ExpiredRenewalRequest = Static<typeof ExpiredRenewalRequest>
export type ExpiredRenewalAnswer = Static<typeof ExpiredRenewalAnswer>
export type EnrolmentRequest = Static<typeof EnrolmentRequest>
export type EnrolmentResponse = Static<typeof EnrolmentResponse>
