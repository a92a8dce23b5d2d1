/**
 * Takes apart what the addon packs (`struct packed_event` in `agent/native/addon/file_events.h`) and says what
 * happened to which path. The kernel merges what one process does to one name, so one event can hold several
 * actions: they come out in the order in which they must have happened.
 */
import { kernelText } from '../../native/kernel-bytes.ts'
import type { FileRecord, KernelText } from '../records.ts'

/** Bits of fanotify(7). */
const masks = {
  closeWrite: 0x8,
  movedTo: 0x80,
  create: 0x100,
  delete: 0x200,
  overflow: 0x4000,
  rename: 0x1000_0000,
  directory: 0x4000_0000,
} as const

const headerBytes = 24
const slash = Buffer.from('/')

export interface FileEventTarget {
  readonly timestampMs: number
  readonly isExcluded: (pid: number) => boolean
  readonly add: (record: FileRecord) => void
}

export interface FileEventSummary {
  /** The kernel's queue was full: it dropped events and does not say how many. */
  readonly overflowed: boolean
  /** Events whose folder was gone before its path could be read. */
  readonly withoutPath: number
  /** False when the bytes did not hold together; what came before was handed up. */
  readonly whole: boolean
}

interface PackedEvent {
  readonly mask: number
  readonly pid: number
  readonly directory: Buffer
  readonly name: Buffer
  readonly oldDirectory: Buffer
  readonly oldName: Buffer
}

/** Decodes `length` bytes of `buffer`. Never throws and never reads past `length`, whatever the bytes. */
export function decodeFileEvents(buffer: Buffer, length: number, target: FileEventTarget): FileEventSummary {
  const end = Math.min(length, buffer.length)
  let overflowed = false
  let withoutPath = 0
  let offset = 0
  while (offset + headerBytes <= end) {
    const recordBytes = buffer.readUInt32LE(offset)
    if (recordBytes < headerBytes || recordBytes % 8 !== 0 || offset + recordBytes > end) break
    const event = readEvent(buffer, offset, recordBytes)
    if (event === undefined) break
    offset += recordBytes
    if ((event.mask & masks.overflow) !== 0) overflowed = true
    else if (target.isExcluded(event.pid) || isUntoldDirectoryEvent(event.mask)) continue
    else if (event.directory.length === 0 || event.name.length === 0) withoutPath++
    else tell(event, target)
  }
  return { overflowed, withoutPath, whole: offset >= end }
}

function readEvent(buffer: Buffer, offset: number, recordBytes: number): PackedEvent | undefined {
  let position = offset + headerBytes
  const take = (bytes: number): Buffer => {
    position += bytes
    return buffer.subarray(position - bytes, position)
  }
  const event = {
    mask: buffer.readUInt32LE(offset + 4),
    pid: buffer.readInt32LE(offset + 8),
    directory: take(buffer.readUInt16LE(offset + 16)),
    name: take(buffer.readUInt16LE(offset + 18)),
    oldDirectory: take(buffer.readUInt16LE(offset + 20)),
    oldName: take(buffer.readUInt16LE(offset + 22)),
  }
  return position > offset + recordBytes ? undefined : event
}

/** A folder that comes or goes holds no content; one that is renamed changes the paths of all that is in it. */
function isUntoldDirectoryEvent(mask: number): boolean {
  return (mask & masks.directory) !== 0 && (mask & (masks.rename | masks.movedTo)) === 0
}

function tell(event: PackedEvent, target: FileEventTarget): void {
  const path = join(event.directory, event.name)
  const base = {
    kind: 'file',
    timestampMs: target.timestampMs,
    pid: event.pid > 0 ? event.pid : null,
    path,
  } as const
  const closed = (event.mask & masks.closeWrite) !== 0
  const created = (event.mask & masks.create) !== 0

  if (created) target.add({ ...base, action: 'creation', previousPath: null, contentComplete: closed })
  else if (closed) target.add({ ...base, action: 'modification', previousPath: null, contentComplete: true })
  if ((event.mask & (masks.rename | masks.movedTo)) !== 0) {
    const previousPath =
      event.oldDirectory.length === 0 || event.oldName.length === 0
        ? null
        : join(event.oldDirectory, event.oldName)
    target.add({ ...base, action: 'rename', previousPath, contentComplete: false })
  }
  if ((event.mask & masks.delete) !== 0) {
    target.add({ ...base, action: 'deletion', previousPath: null, contentComplete: false })
  }
}

function join(directory: Buffer, name: Buffer): KernelText {
  const isRoot = directory.length === 1 && directory[0] === slash[0]
  return kernelText(Buffer.concat(isRoot ? [directory, name] : [directory, slash, name]))
}
