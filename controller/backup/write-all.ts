/** Feeds the archive's own kind of stream, which `pipeline` of Node does not see the end of. */
import { type EventEmitter, once } from 'node:events'

interface Sink {
  write(chunk: Uint8Array): boolean
  end(last: undefined): unknown
  on(event: 'error', listener: () => void): unknown
}

/** Resolves when the last chunk was taken; rejects when the sink fails, the source fails, or `signal` aborts. */
export async function writeAll(
  sink: Sink,
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  // Between two waits nobody listens, and an error without a listener would end the process.
  sink.on('error', () => undefined)
  for await (const chunk of chunks) {
    signal.throwIfAborted()
    if (!sink.write(chunk)) await once(sink as unknown as EventEmitter, 'drain', { signal })
  }
  sink.end(undefined)
}
