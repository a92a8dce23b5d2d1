/**
 * Telemetry lists of this host: put in force by a signed command, kept over restarts, removed by lists without
 * rules. The invariants held here:
 * - the file is on disk, whole, before the lists take effect;
 * - at a start nothing is believed but what the journal knows of a command that operators signed: a file that was
 *   altered, planted, put back from before or taken away is told as tampering, and the host runs without lists,
 *   since one that tells more than it was asked to is the lesser harm.
 */
import { hashTelemetryLists } from '../../shared/node/telemetry-hash.ts'
import type { TelemetryLists } from '../../shared/protocol/telemetry-lists.ts'
import type { CompiledLists, TelemetryMatcher } from '../sensors/volume/telemetry-matcher.ts'
import { type Action, type ApplyResult, errorCode, type ProbeResult, type Proof } from './action.ts'
import type { Journal } from './journal.ts'
import {
  readTelemetryRecord,
  removeTelemetryRecord,
  setTelemetryRecordAside,
  writeTelemetryRecord,
} from './telemetry-record.ts'

const TIMEOUT_MS = 30_000
/** One lists command at a time. */
const KEY = 'host:telemetry'
const NO_LISTS_HASH = hashTelemetryLists({ rules: [] })

/** Lists that a command put in force. */
export interface ListsInForce {
  readonly rules: number
  /** Of the canonical lists. */
  readonly sha256: string
  readonly commandId: string
  readonly since: string
}

export interface TelemetryListsOptions {
  readonly stateFolder: string
  readonly journal: Pick<Journal, 'open' | 'latestApplied' | 'present' | 'reach'>
  readonly compile: (lists: TelemetryLists) => CompiledLists
  /** Null: none are in force any more. */
  readonly setLists: (matcher: TelemetryMatcher | null) => void
  readonly tampered: (reason: string) => void
  readonly clock: () => number
}

export interface HostTelemetryLists {
  /** Null: all is told. */
  inForce(): ListsInForce | null
  readonly action: Action<'setTelemetryLists'>
}

interface Known {
  readonly commandId: string
  readonly sha256: string
  readonly sinceMs: number
}

/** Puts in force what is believed of what the last run left, before it returns. */
export function openTelemetryLists(options: TelemetryListsOptions): HostTelemetryLists {
  const { stateFolder, journal, compile, setLists, tampered, clock } = options
  let inForce: ListsInForce | null = null
  takeUp()

  /** What may be in the file: the last that was applied, and what was being applied when the agent ended. */
  function known(): { readonly applied: Known | null; readonly candidates: readonly Known[] } {
    const last = journal.latestApplied('setTelemetryLists')
    const applied = last && { ...knownOf(last.commandId, last.args), sinceMs: last.atMs }
    const begun = journal
      .open()
      .filter(({ action, applying }) => action === 'setTelemetryLists' && applying)
      .map(({ commandId, args, receivedMs }) => ({ ...knownOf(commandId, args), sinceMs: receivedMs }))
    return { applied, candidates: applied === null ? begun : [applied, ...begun] }
  }

  function takeUp(): void {
    const { applied, candidates } = known()
    const read = readTelemetryRecord(stateFolder)
    if (read.kind === 'none') {
      const mayBeNone = candidates.length === 0 || candidates.some(({ sha256 }) => sha256 === NO_LISTS_HASH)
      if (!mayBeNone && applied !== null) distrust(applied, 'the file of the telemetry lists is gone')
      return
    }
    if (read.kind === 'damaged') {
      distrust(applied, read.reason, true)
      return
    }
    const { commandId, lists } = read.record
    const sha256 = hashTelemetryLists(lists)
    const signed = candidates.find((one) => one.commandId === commandId && one.sha256 === sha256)
    const compiled = compile(lists)
    if (signed === undefined || !compiled.ok) {
      const why = compiled.ok ? 'they are not those that operators signed' : compiled.problems.join('; ')
      distrust(applied, `the telemetry lists on disk (SHA-256 ${sha256}): ${why}`, true)
      return
    }
    setLists(compiled.matcher)
    inForce = { rules: lists.rules.length, sha256, commandId, since: iso(signed.sinceMs) }
  }

  /** Told once: the command is taken back, so that nothing is expected to be there any more. */
  function distrust(applied: Known | null, reason: string, aside = false): void {
    const told = `${reason}: this host runs without telemetry lists until they are set again`
    tampered(told)
    if (aside) putAside()
    // A removal stands whatever was put there since.
    if (applied === null || applied.sha256 === NO_LISTS_HASH) return
    if (journal.present(applied.commandId)?.state === 'done') {
      journal.reach(applied.commandId, 'reverted', told, { rules: 0, sha256: NO_LISTS_HASH })
    }
  }

  function putAside(): void {
    try {
      setTelemetryRecordAside(stateFolder)
    } catch (error) {
      tampered(`the file of the telemetry lists cannot be put aside: ${errorCode(error)}`)
    }
  }

  function apply(commandId: string, lists: TelemetryLists): ApplyResult {
    const compiled = compile(lists)
    if (!compiled.ok) return { kind: 'refused', code: 'invalid', reason: compiled.problems.join('; ') }
    const before = inForce
    const sha256 = hashTelemetryLists(lists)
    const rules = lists.rules.length
    try {
      if (rules === 0) removeTelemetryRecord(stateFolder)
      else writeTelemetryRecord(stateFolder, commandId, lists)
    } catch (error) {
      const reason = `the telemetry lists could not be kept on disk (${errorCode(error)}): those before stay in force`
      return { kind: 'failed', reason, proof: proofOf(before) }
    }
    setLists(rules === 0 ? null : compiled.matcher)
    inForce = rules === 0 ? null : { rules, sha256, commandId, since: iso(clock()) }
    const reason = rules === 0 ? 'no telemetry lists are in force' : `${rules} telemetry rules are in force`
    return { kind: 'applied', reason, proof: { rules, sha256, replaced: before?.sha256 ?? null } }
  }

  /** Holds what is on disk and what is in force against what was asked. */
  function probe(commandId: string, lists: TelemetryLists, applied: Proof | null): ProbeResult {
    const wanted = hashTelemetryLists(lists)
    const read = readTelemetryRecord(stateFolder)
    const onDisk = read.kind === 'record' ? hashTelemetryLists(read.record.lists) : NO_LISTS_HASH
    const isOurs = read.kind !== 'record' || read.record.commandId === commandId
    const proof = { ...applied, ...proofOf(inForce), onDisk }
    if (read.kind !== 'damaged' && isOurs && onDisk === wanted && proof.sha256 === wanted) {
      const reason =
        inForce === null ? 'no telemetry lists are in force' : `${inForce.rules} rules are in force`
      return { kind: 'proved', reason, proof }
    }
    const reason = read.kind === 'damaged' ? read.reason : 'the file does not hold the lists that were signed'
    return { kind: 'disproved', reason, proof }
  }

  /** What is not on disk as it was signed is not in force either. */
  function withdraw(commandId: string): void {
    if (inForce?.commandId !== commandId) return
    setLists(null)
    inForce = null
  }

  return {
    inForce: () => inForce,
    action: {
      idempotent: true,
      access: 'exclusive',
      timeoutMs: TIMEOUT_MS,
      key: () => KEY,
      check: async () => ({ kind: 'ready' }),
      apply: async ({ commandId, args }) => apply(commandId, args.lists),
      async probe({ commandId, args }, applied) {
        const found = probe(commandId, args.lists, applied)
        // Without a proof of its application it may only not have been applied yet.
        if (found.kind === 'disproved' && applied !== null) withdraw(commandId)
        return found
      },
    },
  }
}

function proofOf(lists: ListsInForce | null) {
  return { rules: lists?.rules ?? 0, sha256: lists?.sha256 ?? NO_LISTS_HASH }
}

/** The arguments are those of a verified intent. */
function knownOf(commandId: string, args: unknown): Omit<Known, 'sinceMs'> {
  return { commandId, sha256: hashTelemetryLists((args as { readonly lists: TelemetryLists }).lists) }
}

function iso(timeMs: number): string {
  return new Date(timeMs).toISOString()
}
