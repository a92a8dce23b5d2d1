/**
 * What an agent does when its certificate ran out while it was away: it asks for another with a proof of its old
 * key, and waits until a person has approved. Events are buffered all the while.
 *
 * The clock of a host may be wrong, so its word is not the last: a host that gets no connection asks too when its
 * certificate has few days left, and one that thinks it ran out is told when it did not.
 */
import { createBackoff } from '../../shared/node/backoff.ts'
import type { Logger } from '../../shared/node/logger.ts'
import { pause } from '../../shared/node/loop.ts'
import { decodeUtf8 } from '../../shared/node/signing.ts'
import { ExpiredRenewalAnswer, ExpiredRenewalNonce } from '../../shared/protocol/messages.ts'
import { compileSchema, parseStrict, type SchemaCheck } from '../../shared/protocol/parse.ts'
import { PROTOCOL_VERSION } from '../../shared/protocol/version.ts'
import type { Identity } from './identity.ts'
import { getPinned, type PinnedServer, type PostResult, postPinned } from './pinned-connection.ts'
import { readRefusalText } from './refusal.ts'

export interface ExpiredRenewalOptions {
  readonly identity: Identity
  readonly uplink: {
    state(): { readonly phase: string; readonly attempts: number }
    reconnect(reason: string): void
  }
  readonly clock: () => number
  readonly logger: Logger
  readonly checkIntervalMs?: number
  readonly backoffMinMs?: number
  readonly backoffMaxMs?: number
}

export interface ExpiredRenewal {
  /** In words; null when the certificate is as it should be. */
  state(): string | null
  run(signal: AbortSignal): Promise<void>
}

const CHECK_INTERVAL_MS = 15_000
const BACKOFF_MIN_MS = 5_000
const BACKOFF_MAX_MS = 600_000
/** A clock may be so many days behind. */
const DOUBTFUL_MS = 4 * 86_400_000
const DOUBTFUL_ATTEMPTS = 5
const ANSWER_BYTES_MAX = 64 * 1024
const nonceCheck = compileSchema(ExpiredRenewalNonce)
const answerCheck = compileSchema(ExpiredRenewalAnswer)

type Step =
  | { readonly kind: 'renewed' }
  | { readonly kind: 'pending'; readonly retryAfterMs: number }
  | { readonly kind: 'refused' | 'failed'; readonly words: string }

export function createExpiredRenewal(options: ExpiredRenewalOptions): ExpiredRenewal {
  const { identity, uplink, clock, logger } = options
  const checkIntervalMs = options.checkIntervalMs ?? CHECK_INTERVAL_MS
  const backoff = createBackoff(
    options.backoffMinMs ?? BACKOFF_MIN_MS,
    options.backoffMaxMs ?? BACKOFF_MAX_MS,
  )
  let state: string | null = null

  const isDue = (): boolean => {
    const { phase, attempts } = uplink.state()
    if (phase === 'connected') return false
    const leftMs = identity.certificateExpiresAtMs() - clock()
    return leftMs <= 0 || (leftMs < DOUBTFUL_MS && attempts >= DOUBTFUL_ATTEMPTS)
  }

  const enter = (words: string | null): void => {
    if (words !== null && words !== state) logger.warn({ renewal: words }, 'the certificate ran out')
    state = words
  }

  /** Returns how long to wait before the next check. */
  const step = async (): Promise<number> => {
    const asked = await ask(identity)
    switch (asked.kind) {
      case 'renewed':
        enter(null)
        backoff.reset()
        uplink.reconnect('the certificate was renewed')
        return checkIntervalMs
      case 'pending':
        enter(
          'PENDING RENEWAL: the certificate ran out; an administrator has to approve another (`cordon host renewals`)',
        )
        backoff.reset()
        return Math.min(asked.retryAfterMs, 4 * checkIntervalMs)
      case 'refused':
      case 'failed':
        enter(asked.words)
        return checkIntervalMs + backoff.next()
    }
  }

  return {
    state: () => state,
    async run(signal) {
      while (!signal.aborted) {
        let waitMs = checkIntervalMs
        if (isDue()) waitMs = await step()
        else if (state !== null) enter(null)
        await pause(waitMs, signal)
      }
    },
  }
}

async function ask(identity: Identity): Promise<Step> {
  const url = new URL('/v1/renew-expired', identity.enrolmentUrl)
  const server: PinnedServer = { rootPem: identity.rootPem, serverName: identity.serverName }
  const greeted = read(nonceCheck, await getPinned(url, server, ANSWER_BYTES_MAX))
  if (!greeted.ok) return greeted.step
  const { nonce } = greeted.value
  const request = { protocolVersion: PROTOCOL_VERSION, nonce, ...identity.proveExpired(nonce) }
  const answered = read(answerCheck, await postPinned(url, server, JSON.stringify(request), ANSWER_BYTES_MAX))
  if (!answered.ok) {
    if (answered.code === 'keyInUse') identity.discardNextKey()
    return answered.step
  }
  if (answered.value.state === 'pending')
    return { kind: 'pending', retryAfterMs: answered.value.retryAfterMs }
  const finished = identity.finishRenewal(answered.value.certificateChainPem)
  return finished.ok
    ? { kind: 'renewed' }
    : { kind: 'failed', words: `the new certificate: ${finished.reason}` }
}

type Read<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly code?: string; readonly step: Step }

function read<Value>(check: SchemaCheck<Value>, answer: PostResult): Read<Value> {
  const failed = (words: string): Read<Value> => ({ ok: false, step: { kind: 'failed', words } })
  if (!answer.ok) return failed(`the certificate ran out, and no other can be asked for: ${answer.reason}`)
  const text = decodeUtf8(answer.body) ?? ''
  if (answer.status !== 200) {
    const refusal = readRefusalText(text)
    if (!refusal) return failed(`the certificate ran out, and the controller answered HTTP ${answer.status}`)
    const { code, message, hint } = refusal
    return { ok: false, code, step: { kind: 'refused', words: `REFUSED: ${message}; ${hint}` } }
  }
  const parsed = parseStrict(check, text, ANSWER_BYTES_MAX)
  return parsed.ok
    ? { ok: true, value: parsed.value }
    : failed(`an answer is not valid: ${parsed.error.reason}`)
}
