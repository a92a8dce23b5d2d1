/** Batches of a made-up host, framed and chained as an agent does it, before there is anything to measure. */
import { CLASS_ACTIVITY, CLASS_PROCESS, type EventClass } from '../../../shared/events/delivery-class.ts'
import { encodeBatch } from '../../../shared/node/batch.ts'
import { CHAIN_START, chainOver } from '../../../shared/node/chain.ts'
import { createHostActivity } from './host-activity.ts'

export interface PreparedFrame {
  readonly class: EventClass
  readonly first: number
  readonly last: number
  /** Of the bodies, before compression. */
  readonly bodyBytes: number
  readonly bytes: Uint8Array
}

/** One half of the batches is of processes, the other of files and connections, in turn. */
export function prepareFrames(
  agentId: string,
  number: number,
  batches: number,
  rowsPerBatch: number,
  fromMs: number,
): PreparedFrame[] {
  const activity = createHostActivity(agentId, number, fromMs)
  const streams = [
    { class: CLASS_PROCESS, next: activity.nextProcess, sequence: 0, hash: CHAIN_START },
    { class: CLASS_ACTIVITY, next: activity.nextActivity, sequence: 0, hash: CHAIN_START },
  ] as const
  return Array.from({ length: batches }, (_, index) => {
    const stream: { sequence: number; hash: Buffer } & (typeof streams)[number] =
      streams[index % 2] ?? streams[0]
    const bodies = Array.from({ length: rowsPerBatch }, () => Buffer.from(JSON.stringify(stream.next())))
    const previous = stream.hash
    const first = stream.sequence + 1
    Object.assign(stream, { hash: chainOver(previous, bodies), sequence: stream.sequence + rowsPerBatch })
    const fields = {
      streamId: agentId,
      class: stream.class,
      firstSequence: first,
      previousHash: previous.toString('hex'),
      lastHash: stream.hash.toString('hex'),
    }
    return {
      class: stream.class,
      first,
      last: stream.sequence,
      bodyBytes: bodies.reduce((sum, body) => sum + body.length, 0),
      bytes: encodeBatch(fields, bodies),
    }
  })
}
