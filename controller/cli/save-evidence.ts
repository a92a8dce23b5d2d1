/**
 * Saves a collected file. It comes into a file of its own beside the one that was asked for, which gets its name only
 * when its hash is the one of the record: what breaks off goes on from there, what is damaged is fetched once more.
 */
import { createHash } from 'node:crypto'
import { constants, existsSync, renameSync, rmSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import type { Evidence } from '../evidence/record.ts'
import { type CommandContext, EXIT, Failure, usage } from './command.ts'
import { createProgress } from './progress.ts'

const HASHED_AT_ONCE_BYTES = 1024 ** 2

export async function saveEvidence(context: CommandContext, evidence: Evidence, path: string): Promise<void> {
  if (existsSync(path)) throw usage(`${path} exists already`, 'Name another file; nothing is overwritten.')
  const part = `${path}.${evidence.sha256.slice(0, 12)}.part`
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW
  await using file = await open(part, flags, 0o600)
  await file.chmod(0o600)
  const begun = (await file.stat()).size
  const from = begun <= evidence.sizeBytes ? begun : 0
  if (from > 0) context.note(`Going on from byte ${from}.`)
  await fetchInto(context, evidence, file, from)
  if ((await hashOf(file)) !== evidence.sha256) {
    if (from > 0) {
      context.note('What was there before was not the beginning of this file: starting over.')
      await fetchInto(context, evidence, file, 0)
    }
    if (from === 0 || (await hashOf(file)) !== evidence.sha256) {
      rmSync(part, { force: true })
      throw new Failure(
        EXIT.failed,
        'hashMismatch',
        'what came is not the file that was collected: its hash is another one',
        'Nothing was saved. Tell whoever runs the controller.',
      )
    }
  }
  await file.sync()
  renameSync(part, path)
}

async function fetchInto(
  context: CommandContext,
  { id, sizeBytes }: Evidence,
  file: FileHandle,
  from: number,
): Promise<void> {
  await file.truncate(from)
  if (from === sizeBytes) return
  const progress = createProgress(context)
  let position = from
  try {
    for await (const chunk of context.client().download(`/evidence/${id}/content`, { offset: from })) {
      // More than was said is not taken: the hash would only tell once the disk is full.
      if (position + chunk.length > sizeBytes) return
      await file.write(chunk, 0, chunk.length, position)
      position += chunk.length
      progress.update(position, sizeBytes)
    }
  } catch (error) {
    progress.end()
    if (position > 0) context.note(`${position} bytes are here; the same command goes on from there.`)
    throw error
  }
  progress.end()
}

async function hashOf(file: FileHandle): Promise<string> {
  const hash = createHash('sha256')
  const buffer = Buffer.allocUnsafe(HASHED_AT_ONCE_BYTES)
  for (let position = 0; ; ) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length, position)
    if (bytesRead === 0) return hash.digest('hex')
    hash.update(buffer.subarray(0, bytesRead))
    position += bytesRead
  }
}
