/** Every bound of the wire contract, in one place. Both ends enforce the same numbers. */

/** Rows in one batch. */
export const BATCH_ROWS_MAX = 500
/** Bytes of one batch before compression. */
export const BATCH_BYTES_MAX = 256 * 1024
/** Bytes of one event body; longer texts are cut by the agent, with a flag. */
export const EVENT_BYTES_MAX = 64 * 1024
/** Bytes of one websocket message, either way (`maxPayload`). */
export const MESSAGE_BYTES_MAX = 512 * 1024
/** Fragments of one websocket message: many tiny ones pin memory. */
export const MESSAGE_FRAGMENTS_MAX = 64
/** Bytes of one JSON control message. */
export const CONTROL_BYTES_MAX = 128 * 1024
/** Nesting of any JSON text that is accepted. */
export const JSON_DEPTH_MAX = 12
/** Batches an agent may have in flight before the controller returns credit. */
export const CREDITS_MAX = 16
/** The agent pauses sending above this many bytes waiting in its socket. */
export const BUFFERED_BYTES_MAX = 1024 * 1024

/** Bytes of the largest file that can be collected. */
export const COLLECT_BYTES_MAX = 16 * 1024 ** 3
/** Bytes of one piece of a collected file before compression. */
export const FILE_CHUNK_BYTES_MAX = 256 * 1024
/** Pieces of collected files an agent may have unanswered. */
export const FILE_CHUNKS_MAX = 8

export const PING_INTERVAL_MS = 15_000
/** Two missed pings: the connection is dead. */
export const PONG_MISSES_MAX = 2
export const BACKOFF_MIN_MS = 1_000
export const BACKOFF_MAX_MS = 300_000
/** Time from TCP accept to a complete hello. */
export const HELLO_TIMEOUT_MS = 10_000

export const CSR_BYTES_MAX = 8 * 1024
export const ENROLMENT_BODY_BYTES_MAX = 16 * 1024
/** Targets under one intent, and so the depth of an inclusion proof (2^14). */
export const TARGETS_MAX = 16_384
export const PROOF_HASHES_MAX = 14
export const INTENT_BYTES_MAX = 16 * 1024
/** Rules in the telemetry lists of a host. */
export const TELEMETRY_RULES_MAX = 64
/** Bytes of telemetry lists as canonical JSON: they and the longest reason fit into one intent. */
export const TELEMETRY_LISTS_BYTES_MAX = 8 * 1024
export const SIGNATURES_MAX = 8
export const KEYSET_BYTES_MAX = 64 * 1024

/** Characters of a path: PATH_MAX is 4,096 bytes, and the lossy text of a byte is at most one character. */
export const PATH_CHARACTERS_MAX = 4_096
export const COMMAND_LINE_CHARACTERS_MAX = 16_384
export const TEXT_CHARACTERS_MAX = 1_024
/** Characters of what an interpreter was given to run. */
export const SCRIPT_CHARACTERS_MAX = 16_384
