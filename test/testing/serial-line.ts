/** Reads a stream piece by piece: a line, then as many bytes as it announced. One reader at a time. */
import type { Readable } from 'node:stream'

export interface SerialLine {
  /** The next line without its end. Rejects after `waitMs`, or once the stream is over. */
  takeLine(waitMs: number): Promise<string>
  takeBytes(bytes: number, waitMs: number): Promise<Buffer>
}

/** `explain` tells what else is known when nothing comes. */
export function createSerialLine(stream: Readable, explain: () => string): SerialLine {
  const chunks: Buffer[] = []
  let over = false
  let wake: () => void = () => undefined
  stream.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    wake()
  })
  stream.once('close', () => {
    over = true
    wake()
  })

  /** Waits until `find` gives how many bytes are there, and takes them. */
  async function take(find: (bytes: Buffer) => number | null, waitMs: number): Promise<Buffer> {
    const untilMs = performance.now() + waitMs
    for (;;) {
      const bytes = Buffer.concat(chunks)
      const length = find(bytes)
      chunks.length = 0
      if (length !== null) {
        chunks.push(bytes.subarray(length))
        return bytes.subarray(0, length)
      }
      chunks.push(bytes)
      const leftMs = untilMs - performance.now()
      if (over || leftMs <= 0)
        throw new Error(`${over ? 'the guest is gone' : `no answer in ${waitMs} ms`}; ${explain()}`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs)
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  return {
    async takeLine(waitMs) {
      const line = await take((bytes) => {
        const end = bytes.indexOf('\n')
        return end < 0 ? null : end + 1
      }, waitMs)
      return line.toString('utf8', 0, line.length - 1)
    },
    takeBytes: (bytes, waitMs) => take((there) => (there.length < bytes ? null : bytes), waitMs),
  }
}
