/** How the examination of a file ended: with what is known of its content, or without. */
import type { ContentFacts } from './content-cache.ts'
import type { OpenedIdentity, SkipReason } from './open-target.ts'

export type ScanOutcome =
  | { readonly kind: 'examined'; readonly facts: ContentFacts; readonly identity: OpenedIdentity }
  | { readonly kind: 'skipped'; readonly reason: SkipReason; readonly detail: string }
