/**
 * An initial file system as the kernel unpacks it: the `newc` format of cpio, uncompressed
 * (Documentation/driver-api/early-userspace/buffer-format.rst).
 */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'

export type InitramfsEntry =
  | { readonly kind: 'file'; readonly content: Uint8Array | string; readonly mode: number }
  /** A file of this machine. */
  | { readonly kind: 'copy'; readonly from: string; readonly mode: number }
  | { readonly kind: 'character-device'; readonly major: number; readonly minor: number }

const DIRECTORY = 0o040_755
const REGULAR = 0o100_000
const CHARACTER_DEVICE = 0o020_600

/** Writes the archive at `path`. Names are absolute; the folders that they need are made. */
export function writeInitramfs(path: string, entries: ReadonlyMap<string, InitramfsEntry>): void {
  const output = openSync(path, 'w')
  let inode = 1
  const put = (name: string, mode: number, content: Uint8Array, device = { major: 0, minor: 0 }) => {
    const nameBytes = Buffer.from(`${name}\0`)
    const fields = [
      ...[inode++, mode, 0, 0, 1, 0, content.length, 0, 0, device.major, device.minor, nameBytes.length, 0],
    ]
    const header = `070701${fields.map((field) => field.toString(16).toUpperCase().padStart(8, '0')).join('')}`
    for (const part of [pad(Buffer.concat([Buffer.from(header), nameBytes])), pad(content)])
      writeFully(output, part)
  }
  try {
    for (const folder of foldersOf(entries.keys())) put(folder, DIRECTORY, Buffer.alloc(0))
    for (const [name, entry] of entries) {
      const relative = name.slice(1)
      if (entry.kind === 'character-device') put(relative, CHARACTER_DEVICE, Buffer.alloc(0), entry)
      else if (entry.kind === 'copy') put(relative, REGULAR | entry.mode, readFileSync(entry.from))
      else put(relative, REGULAR | entry.mode, Buffer.from(entry.content))
    }
    put('TRAILER!!!', 0, Buffer.alloc(0))
  } finally {
    closeSync(output)
  }
}

/** Parents before what is in them. */
function foldersOf(names: Iterable<string>): readonly string[] {
  const folders = new Set<string>()
  for (const name of names) {
    if (!name.startsWith('/')) throw new Error(`${name} is no absolute name for the guest's file system`)
    for (let folder = dirname(name); folder !== '/'; folder = dirname(folder)) folders.add(folder.slice(1))
  }
  return [...folders].sort()
}

function pad(bytes: Uint8Array): Uint8Array {
  const missing = (4 - (bytes.length % 4)) % 4
  return missing === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(missing)])
}

function writeFully(fd: number, bytes: Uint8Array): void {
  for (let written = 0; written < bytes.length; ) written += writeSync(fd, bytes, written)
}
