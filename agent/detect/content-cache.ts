/**
 * What is known of contents that were examined, by the identity of the file and by the content itself, so that a
 * file is read once however often it is run, and equal contents share one result.
 */
import type { FileIdentity } from '../sensors/records.ts'
import { createLru } from './lru.ts'
import type { OpenedIdentity } from './open-target.ts'
import type { ExaminedReply } from './scan-reply.ts'

/** What the scanner child told of a content; some of it is null where the file is too large to read to its end. */
export type ContentFacts = Readonly<
  Pick<
    ExaminedReply,
    'hashes' | 'tlsh' | 'entropy' | 'header' | 'mimeType' | 'hits' | 'scannedBytes' | 'scanProblem'
  >
>

interface KnownContent {
  readonly facts: ContentFacts
  /** Under which it is found; the kernel may name the device by another number than stat(2) does. */
  readonly told: FileIdentity
  readonly identity: OpenedIdentity
}

export interface ContentCache {
  /** Undefined also when the file was changed since. */
  find(identity: FileIdentity): KnownContent | undefined
  /**
   * Keeps what was examined when it holds for the whole and steady content, and returns its facts. `told`: how the
   * kernel named the file, null when unknown.
   */
  remember(told: FileIdentity | null, reply: ExaminedReply, identity: OpenedIdentity): ContentFacts
}

export function createContentCache(entriesMax: number): ContentCache {
  const byInode = createLru<KnownContent>(entriesMax)
  const byContent = createLru<ContentFacts>(entriesMax)

  return {
    // An inode has one content at a time, so size and change time are compared, not part of the key.
    find(identity) {
      const known = byInode.get(inodeKey(identity))
      return known !== undefined && isUnchanged(known.told, identity) ? known : undefined
    },
    remember(told, reply, identity) {
      const facts: ContentFacts = {
        hashes: reply.hashes,
        tlsh: reply.tlsh,
        entropy: reply.entropy,
        header: reply.header,
        mimeType: reply.mimeType,
        hits: reply.hits,
        scannedBytes: reply.scannedBytes,
        scanProblem: reply.scanProblem,
      }
      // A content that changed while it was read, or was not read to its end, is looked at again next time.
      const isSteady =
        reply.sizeBytes === identity.sizeBytes && BigInt(reply.changedNs) === identity.changedNs
      const isWhole = reply.scanProblem === null || reply.scanProblem === 'no-engine'
      if (!isSteady || !isWhole) return facts
      // Files of equal content share one object.
      const same = reply.hashes === null ? undefined : byContent.get(reply.hashes.sha256)
      const shared = same ?? facts
      if (reply.hashes !== null) byContent.set(reply.hashes.sha256, shared)
      byInode.set(inodeKey(identity), { facts: shared, told: identity, identity })
      if (told !== null && isUnchanged(told, identity) && told.device !== identity.device) {
        byInode.set(inodeKey(told), { facts: shared, told, identity })
      }
      return shared
    },
  }
}

/** What tells inodes apart, as a text. */
export function inodeKey(identity: FileIdentity): string {
  return `${identity.device}:${identity.inode}`
}

function isUnchanged(before: FileIdentity, after: FileIdentity): boolean {
  return before.sizeBytes === after.sizeBytes && before.changedNs === after.changedNs
}
