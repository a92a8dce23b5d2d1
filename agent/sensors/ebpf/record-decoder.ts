/**
 * Takes apart what the kernel programs write (`agent/native/bpf/records.h`, whose offsets stand here). Runs for
 * each process of a busy host, so it reads numbers in place and decodes all text of a record at once.
 */
import { isAscii } from 'node:buffer'
import { kernelText, splitArguments } from '../../native/kernel-bytes.ts'
import type { ExecRecord, SensorRecord } from '../records.ts'
import { decodeActivity } from './activity-decoder.ts'
import type { ConnectionObservation } from './connection-outcomes.ts'
import { readCircumstances } from './exec-circumstances.ts'
import { decodeFlow, flowBytes } from './flow-decoder.ts'
import type { ActivityTarget } from './raw-activity.ts'
import { markTruncated, parentKey, processKey, timestampMs, word64, wordSize } from './record-reader.ts'

const kinds = {
  exec: 1,
  exit: 2,
  fork: 3,
  connectAttempt: 4,
  connectOutcome: 5,
  accept: 6,
  close: 7,
  datagram: 8,
  listen: 9,
  dns: 10,
  activity: 11,
} as const
const flags = {
  argumentsTruncated: 1,
  executableTruncated: 2,
  workingDirectoryTruncated: 4,
  fileKnown: 8,
  connected: 16,
  attemptTold: 32,
  unlinked: 64,
} as const
const headerBytes = 40
const exitBytes = 48
const connectBytes = 88
const execHeaderBytes = 176

export interface DecodedBatch {
  /** False when a record did not hold together: what follows it in the batch is not readable. */
  readonly whole: boolean
}

export interface DecodeTarget extends ActivityTarget {
  /** Inodes of the host's own namespaces, by name. */
  readonly hostNamespaces: Readonly<Record<string, number>>
  readonly add: (record: SensorRecord) => void
  readonly addConnection: (observation: ConnectionObservation) => void
}

/** Decodes `length` bytes of `buffer`. Never throws and never reads past `length`, whatever the bytes. */
export function decodeRecords(buffer: Buffer, length: number, target: DecodeTarget): DecodedBatch {
  const end = Math.min(length, buffer.length)
  let offset = 0
  while (offset + headerBytes <= end) {
    const recordBytes = buffer.readUInt32LE(offset)
    if (recordBytes < headerBytes || offset + recordBytes > end) return { whole: false }
    if (!decodeRecord(buffer, offset, recordBytes, target)) return { whole: false }
    offset += (recordBytes + 7) & ~7
  }
  return { whole: offset >= end }
}

function decodeRecord(buffer: Buffer, offset: number, recordBytes: number, target: DecodeTarget): boolean {
  switch (buffer[offset + 4]) {
    case kinds.exec:
      return decodeExec(buffer, offset, recordBytes, target)
    case kinds.exit:
      if (recordBytes !== exitBytes) return false
      target.add(decodeExit(buffer, offset, target.wallOffsetMs))
      return true
    case kinds.fork:
      if (recordBytes !== headerBytes) return false
      target.add({
        kind: 'fork',
        timestampMs: timestampMs(buffer, offset, target.wallOffsetMs),
        process: processKey(buffer, offset),
        parent: parentKey(buffer, offset),
      })
      return true
    case kinds.connectAttempt:
    case kinds.connectOutcome:
      if (recordBytes !== connectBytes) return false
      target.addConnection(decodeConnection(buffer, offset, target.wallOffsetMs))
      return true
    case kinds.accept:
    case kinds.close:
    case kinds.datagram:
    case kinds.listen:
    case kinds.dns: {
      const flow =
        recordBytes < flowBytes ? null : decodeFlow(buffer, offset, recordBytes, target.wallOffsetMs)
      if (flow !== null) target.add(flow)
      return flow !== null
    }
    case kinds.activity:
      return decodeActivity(buffer, offset, recordBytes, target)
    default:
      return false
  }
}

function decodeExec(buffer: Buffer, offset: number, recordBytes: number, target: DecodeTarget): boolean {
  if (recordBytes < execHeaderBytes) return false
  const environmentStart = offset + execHeaderBytes
  const cgroupStart = environmentStart + buffer.readUInt16LE(offset + 92)
  const argumentsStart = cgroupStart + buffer.readUInt16LE(offset + 94)
  const executableStart = argumentsStart + buffer.readUInt32LE(offset + 52)
  const directoryStart = executableStart + buffer.readUInt16LE(offset + 88)
  const directoryEnd = directoryStart + buffer.readUInt16LE(offset + 90)
  if (directoryEnd !== offset + recordBytes) return false
  const flagBits = buffer[offset + 5] ?? 0

  const text = buffer.subarray(argumentsStart, directoryEnd)
  let executable: ExecRecord['executable']
  let argumentList: ExecRecord['arguments']
  let workingDirectory: ExecRecord['workingDirectory']
  if (isAscii(text)) {
    // One decoding for the three: in ASCII, offsets in bytes are offsets in the string.
    const all = text.toString('latin1')
    argumentList = splitText(all.slice(0, executableStart - argumentsStart))
    executable = all.slice(executableStart - argumentsStart, directoryStart - argumentsStart)
    workingDirectory = all.slice(directoryStart - argumentsStart)
  } else {
    argumentList = splitArguments(buffer.subarray(argumentsStart, executableStart))
    executable = kernelText(buffer.subarray(executableStart, directoryStart))
    workingDirectory = kernelText(buffer.subarray(directoryStart, directoryEnd))
  }
  if ((flagBits & flags.executableTruncated) !== 0) executable = markTruncated(executable)
  if ((flagBits & flags.workingDirectoryTruncated) !== 0) workingDirectory = markTruncated(workingDirectory)
  target.add({
    kind: 'exec',
    timestampMs: timestampMs(buffer, offset, target.wallOffsetMs),
    process: processKey(buffer, offset),
    parent: parentKey(buffer, offset),
    userId: buffer.readUInt32LE(offset + 40),
    groupId: buffer.readUInt32LE(offset + 44),
    sessionId: buffer.readUInt32LE(offset + 48),
    executable,
    arguments: argumentList,
    argumentsTruncated: (flagBits & flags.argumentsTruncated) !== 0,
    workingDirectory,
    file: (flagBits & flags.fileKnown) === 0 ? null : fileIdentity(buffer, offset),
    circumstances: readCircumstances(buffer, offset, {
      environment: buffer.subarray(environmentStart, cgroupStart),
      cgroup: buffer.subarray(cgroupStart, argumentsStart),
      hostNamespaces: target.hostNamespaces,
      executable,
      isUnlinked: (flagBits & flags.unlinked) !== 0,
    }),
  })
  return true
}

/** Each argument ends with a zero byte, save the last of a truncated list. */
function splitText(text: string): string[] {
  if (text === '') return []
  return (text.endsWith('\0') ? text.slice(0, -1) : text).split('\0')
}

function fileIdentity(buffer: Buffer, offset: number): NonNullable<ExecRecord['file']> {
  return {
    device: word64(buffer, offset + 56),
    inode: word64(buffer, offset + 64),
    sizeBytes: word64(buffer, offset + 72),
    changedNs: buffer.readBigUInt64LE(offset + 80),
  }
}

/** The status is that of wait(2): the signal in the low 7 bits, the exit status in the next byte. */
function decodeExit(buffer: Buffer, offset: number, wallOffsetMs: number): SensorRecord {
  const status = buffer.readUInt32LE(offset + 40)
  const signal = status & 0x7f
  return {
    kind: 'exit',
    timestampMs: timestampMs(buffer, offset, wallOffsetMs),
    process: processKey(buffer, offset),
    exitCode: signal === 0 ? (status >> 8) & 0xff : null,
    signal: signal === 0 ? null : signal,
  }
}

function decodeConnection(buffer: Buffer, offset: number, wallOffsetMs: number): ConnectionObservation {
  const flagBits = buffer[offset + 5] ?? 0
  return {
    stage: buffer[offset + 4] === kinds.connectAttempt ? 'attempt' : 'outcome',
    connected: (flagBits & flags.connected) !== 0,
    attemptTold: (flagBits & flags.attemptTold) !== 0,
    // 48 bits of the kernel's address are exact as a number, and the time tells sockets at one address apart.
    socket: (buffer.readUInt32LE(offset + 44) & 0xffff) * wordSize + buffer.readUInt32LE(offset + 40),
    attemptedNs: word64(buffer, offset + 8),
    timestampMs: timestampMs(buffer, offset, wallOffsetMs),
    process: processKey(buffer, offset),
    family: buffer.readUInt16LE(offset + 48),
    sourcePort: buffer.readUInt16LE(offset + 50),
    destinationPort: buffer.readUInt16LE(offset + 52),
    // A copy, because the buffer is filled again before the outcome is known.
    addresses: Buffer.from(buffer.subarray(offset + 56, offset + 88)),
  }
}
