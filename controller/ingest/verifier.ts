/** The thread that checks frames, as promises. */
import { join } from 'node:path'
import { startWorker } from '../../shared/node/assets.ts'
import type { Logger } from '../../shared/node/logger.ts'
import { aborted } from '../../shared/node/loop.ts'
import type { FrameOrigin, Verdict } from './verify.ts'

export interface VerifyRequest extends FrameOrigin {
  readonly id: number
  readonly frame: Uint8Array
}
export interface VerifyReply {
  readonly kind: 'verdict'
  readonly id: number
  readonly verdict: Verdict
}
export interface VerifyLog {
  readonly kind: 'log'
  readonly level: 'warn' | 'error'
  readonly text: string
  readonly detail: Record<string, unknown>
}

/** Parsed events live as long as their batch: with room for many batches, few of them are copied by a collection. */
const YOUNG_MEGABYTES = 128

export type Verify = (frame: Uint8Array, origin: FrameOrigin) => Promise<Verdict>

export interface Verifier {
  /** Verdicts come in the order of the calls. Rejects when the thread is gone. Callers bound how many wait. */
  readonly verify: Verify
  /** Resolves after `signal` aborts and the thread has ended; rejects when it dies. */
  run(signal: AbortSignal): Promise<void>
  close(): Promise<void>
}

export function startVerifier(logger: Logger): Verifier {
  const worker = startWorker(join(import.meta.dirname, 'verify-worker.ts'), {
    name: 'verify',
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MEGABYTES },
  })
  const waiting = new Map<number, PromiseWithResolvers<Verdict>>()
  const died = Promise.withResolvers<never>()
  died.promise.catch(() => undefined)
  let lastId = 0
  let dead: Error | null = null

  const die = (cause: Error): void => {
    dead ??= cause
    died.reject(dead)
    for (const asked of waiting.values()) asked.reject(dead)
    waiting.clear()
  }
  worker.on('message', (message: VerifyReply | VerifyLog) => {
    if (message.kind === 'log') {
      logger[message.level](message.detail, message.text)
      return
    }
    waiting.get(message.id)?.resolve(message.verdict)
    waiting.delete(message.id)
  })
  worker.on('error', (cause) => die(cause instanceof Error ? cause : new Error(String(cause))))
  worker.on('exit', (code) => die(new Error(`the thread that checks batches ended with code ${code}`)))

  const close = async (): Promise<void> => {
    await worker.terminate()
  }
  return {
    verify(frame, { agentId, streamId }) {
      if (dead) return Promise.reject(dead)
      lastId += 1
      const asked = Promise.withResolvers<Verdict>()
      waiting.set(lastId, asked)
      // A copy: the frame's own buffer may hold what came after it, and is not ours to give away.
      const copy = new Uint8Array(frame)
      const request: VerifyRequest = { id: lastId, frame: copy, agentId, streamId }
      worker.postMessage(request, [copy.buffer])
      return asked.promise
    },
    close,
    async run(signal) {
      try {
        await Promise.race([aborted(signal), died.promise])
      } finally {
        await close()
      }
    },
  }
}
