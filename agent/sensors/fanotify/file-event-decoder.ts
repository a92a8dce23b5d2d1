/**
 * Takes apart what the addon packs (`struct packed_event` in `agent/native/addon/file_events.h`) and says what
 * happened to which path. The kernel merges what one process does to one name, so one event can hold several
 * actions: they come out in the order in which they must have happened.
 */
import { kernelText } from '../../native/kernel-bytes.ts'
import type { FileNames, FileRecord, KernelText } from '../records.ts'
import type { FileCounts } from './discarded-events.ts'

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

/** File types of inode(7), in st_mode. */
const fileTypes = { mask: 0o170000, regular: 0o100000, symlink: 0o120000 } as const

const headerBytes = 40
const slash = Buffer.from('/')

export interface FileEventTarget {
  readonly timestampMs: number
  readonly isExcluded: (pid: number) => boolean
  readonly add: (record: FileRecord) => void
  /** Where events are counted whose folder was gone before its path could be read. */
  readonly withoutPath: FileCounts
}

export interface FileEventSummary {
  /** The kernel's queue was full: it dropped events and does not say how many. */
  readonly overflowed: boolean
  /** False when the bytes did not hold together; what came before was handed up. */
  readonly whole: boolean
}

/** Positions in the buffer rather than copies: most events need one text, and a flood needs it fast. */
interface PackedEvent {
  readonly buffer: Buffer
  readonly mask: number
  readonly pid: number
  /** Where the directory begins; the name, the old directory and the old name follow on each other. */
  readonly start: number
  readonly directoryBytes: number
  readonly nameBytes: number
  readonly oldDirectoryBytes: number
  readonly oldNameBytes: number
  /** Absent when nobody looked; null when the name was gone. */
  readonly names: FileNames | null | undefined
}

/** Decodes `length` bytes of `buffer`. Never throws and never reads past `length`, whatever the bytes. */
export function decodeFileEvents(buffer: Buffer, length: number, target: FileEventTarget): FileEventSummary {
  const end = Math.min(length, buffer.length)
  let overflowed = false
  let offset = 0
  while (offset + headerBytes <= end) {
    const recordBytes = buffer.readUInt32LE(offset)
    if (recordBytes < headerBytes || recordBytes % 8 !== 0 || offset + recordBytes > end) break
    const event = readEvent(buffer, offset, recordBytes)
    if (event === undefined) break
    offset += recordBytes
    if ((event.mask & masks.overflow) !== 0) overflowed = true
    else if (target.isExcluded(event.pid) || isUntoldDirectoryEvent(event.mask)) continue
    else tell(event, target)
  }
  return { overflowed, whole: offset >= end }
}

function readEvent(buffer: Buffer, offset: number, recordBytes: number): PackedEvent | undefined {
  const start = offset + headerBytes
  const directoryBytes = buffer.readUInt16LE(offset + 16)
  const nameBytes = buffer.readUInt16LE(offset + 18)
  const oldDirectoryBytes = buffer.readUInt16LE(offset + 20)
  const oldNameBytes = buffer.readUInt16LE(offset + 22)
  const targetStart = start + directoryBytes + nameBytes + oldDirectoryBytes + oldNameBytes
  const targetEnd = targetStart + buffer.readUInt16LE(offset + 32)
  if (targetEnd > offset + recordBytes) return undefined
  const isLookedAt = buffer.readUInt16LE(offset + 34) !== 0
  const mode = buffer.readUInt32LE(offset + 24)
  const links = buffer.readUInt32LE(offset + 28)
  return {
    buffer,
    mask: buffer.readUInt32LE(offset + 4),
    pid: buffer.readInt32LE(offset + 8),
    start,
    directoryBytes,
    nameBytes,
    oldDirectoryBytes,
    oldNameBytes,
    names: isLookedAt ? namesOf(mode, links, buffer, targetStart, targetEnd) : undefined,
  }
}

/** Undefined for a file with this one name, which is what nearly all are. */
function namesOf(
  mode: number,
  links: number,
  buffer: Buffer,
  targetStart: number,
  targetEnd: number,
): FileNames | null | undefined {
  if (mode === 0) return null
  const type = mode & fileTypes.mask
  if (type === fileTypes.symlink) {
    const target = targetStart === targetEnd ? null : kernelText(buffer.subarray(targetStart, targetEnd))
    return { type: 'symlink', links, target }
  }
  if (type !== fileTypes.regular) return { type: 'other', links, target: null }
  return links > 1 ? { type: 'file', links, target: null } : undefined
}

/** A folder that comes or goes holds no content; one that is renamed changes the paths of all that is in it. */
function isUntoldDirectoryEvent(mask: number): boolean {
  return (mask & masks.directory) !== 0 && (mask & (masks.rename | masks.movedTo)) === 0
}

function tell(event: PackedEvent, target: FileEventTarget): void {
  if (event.directoryBytes === 0 || event.nameBytes === 0) {
    for (const action of actionsOf(event.mask)) target.withoutPath[action] += 1
    return
  }
  const path = join(event.buffer, event.start, event.directoryBytes, event.nameBytes)
  const pid = event.pid > 0 ? event.pid : null
  const isClosed = (event.mask & masks.closeWrite) !== 0
  for (const action of actionsOf(event.mask)) {
    const isRename = action === 'rename'
    target.add({
      kind: 'file',
      timestampMs: target.timestampMs,
      pid,
      action,
      path,
      previousPath: isRename ? previousPathOf(event) : null,
      contentComplete: isClosed && (action === 'creation' || action === 'modification'),
      ...(action === 'creation' && event.names !== undefined ? { names: event.names } : {}),
    })
  }
}

/** A write that belongs to a creation is told with it. The addon counts what it discards by the same rule. */
function actionsOf(mask: number): FileRecord['action'][] {
  const actions: FileRecord['action'][] = []
  if ((mask & masks.create) !== 0) actions.push('creation')
  else if ((mask & masks.closeWrite) !== 0) actions.push('modification')
  if ((mask & (masks.rename | masks.movedTo)) !== 0) actions.push('rename')
  if ((mask & masks.delete) !== 0) actions.push('deletion')
  return actions
}

function previousPathOf(event: PackedEvent): KernelText | null {
  const { buffer, start, directoryBytes, nameBytes, oldDirectoryBytes, oldNameBytes } = event
  const isKnown = oldDirectoryBytes > 0 && oldNameBytes > 0
  return isKnown ? join(buffer, start + directoryBytes + nameBytes, oldDirectoryBytes, oldNameBytes) : null
}

/** The name follows on its directory. */
function join(buffer: Buffer, start: number, directoryBytes: number, nameBytes: number): KernelText {
  const nameStart = start + directoryBytes
  const isRoot = directoryBytes === 1 && buffer[start] === slash[0]
  const directory = isRoot ? '' : buffer.toString('utf8', start, nameStart)
  const path = `${directory}/${buffer.toString('utf8', nameStart, nameStart + nameBytes)}`
  // Bytes that are no UTF-8 read as this character, which may also stand there itself.
  if (!path.includes('\ufffd')) return path
  const parts = [buffer.subarray(start, nameStart), slash, buffer.subarray(nameStart, nameStart + nameBytes)]
  return kernelText(Buffer.concat(isRoot ? parts.slice(1) : parts))
}
