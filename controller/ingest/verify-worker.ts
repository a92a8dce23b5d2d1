/** Entry of the thread that checks frames: one after the other, in the order in which they came. */
import { parentPort } from 'node:worker_threads'
import { createExaminer, createWeigh } from '../detect/examiner.ts'
import { compileFleetIndicators } from '../detect/fleet-matcher.ts'
import type { VerifyLog, VerifyReply, VerifyRequest } from './verifier.ts'
import { verifyFrame } from './verify.ts'

const port = parentPort
if (!port) throw new Error('this file is the entry of a worker thread')

const post = (message: VerifyReply | VerifyLog, move: readonly ArrayBuffer[] = []): void =>
  port.postMessage(message, move)
const matcher = compileFleetIndicators(Date.now(), (problem) =>
  post({ kind: 'log', level: 'warn', text: 'content was left out', detail: { problem } }),
)
const weigh = createWeigh(
  createExaminer(() => matcher),
  (error, action) =>
    post({
      kind: 'log',
      level: 'error',
      text: 'an event could not be examined',
      detail: { action, error: String(error) },
    }),
)

port.on('message', ({ id, frame, ...origin }: VerifyRequest) => {
  const verdict = verifyFrame(frame, origin, weigh)
  post(
    { kind: 'verdict', id, verdict },
    verdict.kind === 'verified' ? [verdict.batch.rows.payload.buffer] : [],
  )
})
