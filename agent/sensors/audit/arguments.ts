/**
 * Puts the arguments of an execve together again. The kernel tells them in records of up to some 7,500 characters:
 * `a0="x"`, and a long one in pieces, `a1_len=20000 a1[0]=4142... a1[1]=...`, over as many records as it takes.
 */
import { kernelText } from '../../native/kernel-bytes.ts'
import type { KernelText } from '../records.ts'
import { type Fields, parseFields, textBytes } from './record-text.ts'

const argumentBytesMax = 32 * 1024
const argumentsMax = 1_024

export interface ArgumentCollector {
  /** Takes the body of one EXECVE record. */
  add(body: string): void
  result(): { readonly arguments: KernelText[]; readonly truncated: boolean }
}

const pieceName = /^a(\d{1,7})(?:\[(\d{1,7})\])?$/

export function createArgumentCollector(): ArgumentCollector {
  const pieces = new Map<number, Buffer[]>()
  let told = 0
  let bytes = 0
  let truncated = false

  function take(name: string, value: string): void {
    const match = pieceName.exec(name)
    if (match === null) return
    const index = Number(match[1])
    if (index >= argumentsMax) {
      truncated = true
      return
    }
    let piece = textBytes(value) ?? Buffer.alloc(0)
    if (bytes + piece.length > argumentBytesMax) {
      truncated = true
      piece = piece.subarray(0, argumentBytesMax - bytes)
    }
    bytes += piece.length
    const known = pieces.get(index)
    if (known) known.push(piece)
    else pieces.set(index, [piece])
  }

  return {
    add(body) {
      // A record that is of no more use is not even taken apart: arguments can be megabytes.
      if (bytes >= argumentBytesMax) {
        truncated = true
        return
      }
      for (const [name, value] of argumentFields(body)) {
        if (name === 'argc') told = Math.min(Number(value) || 0, argumentsMax + 1)
        else take(name, value)
      }
    },
    result() {
      const found: KernelText[] = []
      let last: Buffer[] | undefined
      for (let index = 0; index < argumentsMax; index++) {
        last = pieces.get(index)
        if (last === undefined) break
        found.push(kernelText(Buffer.concat(last)))
      }
      return { arguments: found, truncated: truncated || found.length !== told }
    },
  }
}

/** A record holds more arguments than other records hold fields: their names never repeat within one. */
function argumentFields(body: string): Fields {
  return parseFields(body, 0, 4_096)
}
