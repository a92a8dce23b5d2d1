/** What events say of a file whose content was examined. */
import type { FileFacts } from '../../shared/events/detection.ts'
import { createFidelity, fidelityFields, text } from '../sensors/kernel-text.ts'
import type { FileIdentity, KernelText } from '../sensors/records.ts'
import type { ContentFacts } from './content-cache.ts'
import type { OpenedIdentity } from './open-target.ts'

/** `identity` and `content`: null where they are not known. */
export function fileFactsOf(
  path: KernelText,
  identity: FileIdentity | OpenedIdentity | null,
  content: ContentFacts | null,
): FileFacts & { 'file.path': string } {
  const fidelity = createFidelity()
  const readable = text('file.path', path, fidelity)
  const name = readable.slice(readable.lastIndexOf('/') + 1)
  const dot = name.lastIndexOf('.')
  const hashes = content?.hashes ?? null
  return {
    'file.path': readable,
    ...(name === '' ? {} : { 'file.name': name.slice(0, 256) }),
    ...(dot > 0 && dot < name.length - 1 ? { 'file.extension': name.slice(dot + 1, dot + 65) } : {}),
    ...(identity === null
      ? {}
      : {
          'file.size': identity.sizeBytes,
          'file.inode': 'exactInode' in identity ? identity.exactInode : String(identity.inode),
          'file.device': String(identity.device),
        }),
    ...(hashes === null
      ? {}
      : {
          'file.hash.sha256': hashes.sha256,
          'file.hash.sha1': hashes.sha1,
          'file.hash.md5': hashes.md5,
        }),
    ...(content === null ? {} : shapeOf(content)),
    ...fidelityFields(fidelity),
  }
}

function shapeOf(content: ContentFacts): FileFacts {
  return {
    ...(content.tlsh === null ? {} : { 'file.hash.tlsh': content.tlsh }),
    'file.mime_type': content.mimeType,
    ...(content.entropy === null ? {} : { 'cordon.file.entropy': content.entropy }),
    'cordon.file.header': content.header,
  }
}
