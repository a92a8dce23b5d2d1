/**
 * What the agent and its scanner child say to each other. The child reads hostile files, so what it answers is
 * treated as hostile too: framed, bounded and checked against a closed schema.
 *
 * A frame is its length (4 bytes, big endian) and that many bytes of JSON. The setup and, without descriptor
 * passing, each request go to the child's standard input; answers come from its standard output. With
 * descriptor passing a request is one message on descriptor 3, with the file's descriptor beside it.
 */
/** Descriptor of the child on which file descriptors arrive. */
export const DESCRIPTOR_SOCKET_FD = 3
export const REQUEST_BYTES_MAX = 256
export const REPLY_BYTES_MAX = 256 * 1024
/** Rule texts and all. */
export const SETUP_BYTES_MAX = 64 * 1024 ** 2

export interface ScanSetup {
  readonly sources: readonly { readonly name: string; readonly text: string }[]
  /** `socket`: the file comes as a descriptor. `proc`: it is opened through /proc/<parent>/fd. */
  readonly transport: 'socket' | 'proc'
  readonly parentPid: number
  /** Bytes from the start of a file that the rules see. */
  readonly scanBytesMax: number
  /** Files above this are not hashed. */
  readonly hashBytesMax: number
  /** After which the engine gives up by itself. */
  readonly scanTimeoutMs: number
  /** RLIMIT_DATA of the child. */
  readonly dataBytesMax: number
}

/** `fd` is the number in the parent, for the `proc` transport. */
export interface ScanRequest {
  readonly id: number
  readonly fd: number
}

export function encodeFrame(message: object): Buffer {
  const body = Buffer.from(JSON.stringify(message))
  const frame = Buffer.allocUnsafe(4 + body.length)
  frame.writeUInt32BE(body.length, 0)
  body.copy(frame, 4)
  return frame
}

export interface FrameDecoder {
  /** Takes what arrived and gives the whole texts in it. Throws a RangeError when a frame is too long. */
  push(chunk: Buffer): string[]
}

export function createFrameDecoder(bytesMax: number): FrameDecoder {
  let pending: Buffer = Buffer.alloc(0)
  return {
    push(chunk) {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
      const texts: string[] = []
      let offset = 0
      while (pending.length - offset >= 4) {
        const length = pending.readUInt32BE(offset)
        if (length > bytesMax) throw new RangeError(`a frame of ${length} bytes, at most ${bytesMax}`)
        if (pending.length - offset - 4 < length) break
        texts.push(pending.toString('utf8', offset + 4, offset + 4 + length))
        offset += 4 + length
      }
      pending = pending.subarray(offset)
      return texts
    },
  }
}
