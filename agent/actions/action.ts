/** What every action is: preconditions, application and probe, each answering with a value. */
import type { ActionArgs, ActionName, ActionTarget } from '../../shared/protocol/commands.ts'

/** What was measured on the host; becomes `cordon.command.proof` of the event. At most 24 entries. */
export type Proof = Readonly<Record<string, string | number | boolean | null>>

export interface ActionRequest<Name extends ActionName> {
  readonly commandId: string
  readonly target: ActionTarget<Name>
  readonly args: ActionArgs<Name>
}

/** The action was not begun and changed nothing. `code` is for programs, `reason` for a person. */
export interface Refusal {
  readonly kind: 'refused'
  readonly code: string
  readonly reason: string
}

export type CheckResult =
  | { readonly kind: 'ready' }
  /** The wanted state holds already: nothing to apply, only to probe. */
  | { readonly kind: 'already'; readonly reason: string; readonly proof: Proof }
  | Refusal

export type ApplyResult =
  | { readonly kind: 'applied'; readonly reason: string; readonly proof: Proof }
  | Refusal
  /** It was begun and did not succeed; what it left behind is in the reason. */
  | { readonly kind: 'failed'; readonly reason: string; readonly proof: Proof }
  /** The signal aborted it, and what it had begun was taken back. */
  | { readonly kind: 'aborted' }

export type ProbeResult =
  | { readonly kind: 'proved'; readonly reason: string; readonly proof: Proof }
  | { readonly kind: 'disproved'; readonly reason: string; readonly proof: Proof }
  /** It had happened, and was taken back: the host is as it was before. */
  | { readonly kind: 'reverted'; readonly reason: string; readonly proof: Proof }
  /** Nothing on the host shows whether it happened. */
  | { readonly kind: 'unknown'; readonly reason: string; readonly proof: Proof }

export interface Action<Name extends ActionName> {
  /** True when applying it twice to the same target leaves what applying it once does: safe after a crash. */
  readonly idempotent: boolean
  /** Exclusive actions wait for each other when their key is the same; shared ones only read. */
  readonly access: 'exclusive' | 'shared'
  /** Bound on one application; its signal aborts after this. */
  readonly timeoutMs: number
  /** Names the target, so that two actions never work on one thing at once. */
  key(target: ActionTarget<Name>): string
  check(request: ActionRequest<Name>, signal: AbortSignal): Promise<CheckResult>
  apply(request: ActionRequest<Name>, signal: AbortSignal): Promise<ApplyResult>
  /** Reads the host anew. `applied` is the proof of the application, null when a crash took it. */
  probe(request: ActionRequest<Name>, applied: Proof | null, signal: AbortSignal): Promise<ProbeResult>
  /** Puts right what an application left half done when the agent was killed in the middle of it. */
  recover?(request: ActionRequest<Name>): Promise<void>
}

/** One entry per action of the protocol: an action without an implementation does not compile. */
export type Actions = { readonly [Name in ActionName]: Action<Name> }

const TEXT_MAX = 1_024
const PROOF_ENTRIES_MAX = 24

/** Cuts a text to what an event may carry. */
export function cut(text: string): string {
  return text.length <= TEXT_MAX ? text : `${text.slice(0, TEXT_MAX - 1)}…`
}

/** A proof that an event may carry: texts cut, numbers finite, entries bounded. */
export function boundedProof(proof: Proof): Proof {
  return Object.fromEntries(
    Object.entries(proof)
      .slice(0, PROOF_ENTRIES_MAX)
      .map(([name, value]) => [name, typeof value === 'string' ? cut(value) : value]),
  )
}

/** Duration since `startedMs` of `performance.now()`, to a tenth of a millisecond. */
export function elapsedMs(startedMs: number): number {
  return Math.round((performance.now() - startedMs) * 10) / 10
}

/** An errno name such as `ENOENT`, or the message of an error that has none. */
export function errorCode(error: unknown): string {
  if (error instanceof Error) {
    const code = (error as NodeJS.ErrnoException).code
    return typeof code === 'string' ? code : error.message
  }
  return String(error)
}
