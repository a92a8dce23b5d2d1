/**
 * Examines the content of files: hashes and YARA rules, in a child process of its own that is ended and started
 * again when it exceeds its bounds. Results are kept by the identity of the file and by its content, so that a
 * file is read once however often it is run.
 */
import { createBackoff } from '../../shared/node/backoff.ts'
import type { YaraSource } from '../../shared/node/content.ts'
import type { Logger } from '../../shared/node/logger.ts'
import { pause } from '../../shared/node/loop.ts'
import type { ScannerProcess } from '../platform/linux/scanner-process.ts'
import type { FileIdentity } from '../sensors/records.ts'
import { createLru } from './lru.ts'
import {
  type OpenedIdentity,
  openTarget,
  type ScanTarget,
  SKIP_REASONS,
  type SkipReason,
} from './open-target.ts'
import { createOwnFiles } from './own-files.ts'
import { createScanQueue, type OutcomeListener, type ScanJob } from './scan-queue.ts'
import type { ExaminedReply } from './scan-reply.ts'
import { type DescriptorPassing, type ScannerChild, startScannerChild } from './scanner-child.ts'
import type { RuleHit } from './yara-engine.ts'

export interface ContentFacts {
  /** Null: the file is too large to hash. */
  readonly hashes: { readonly sha256: string; readonly sha1: string; readonly md5: string } | null
  readonly hits: readonly RuleHit[]
  /** Bytes from the start that the rules saw; fewer than the file's size when it is large. */
  readonly scannedBytes: number
  /** Null: the rules ran to their end. */
  readonly scanProblem: ExaminedReply['scanProblem']
}

export type ScanOutcome =
  | { readonly kind: 'examined'; readonly facts: ContentFacts; readonly identity: OpenedIdentity }
  | { readonly kind: 'skipped'; readonly reason: SkipReason; readonly detail: string }

export interface ScannerOptions {
  readonly sources: readonly YaraSource[]
  /** Starts `cordon-agent scan-worker`; descriptor 3 is the given socket, when there is one. */
  readonly startProcess: (descriptorSocket: number | null) => ScannerProcess
  /** Null: without the native addon the child opens /proc/<agent>/fd/N, as the same user. */
  readonly descriptors: DescriptorPassing | null
  /** What lies below these is never read. */
  readonly ownFolders: readonly string[]
  readonly logger: Logger
  readonly clock: () => number
  readonly random?: () => number
  /** Each child's pid, as soon as there is one: sensors leave it out. */
  readonly onSpawn?: (pid: number) => void
  readonly limits?: Partial<ScannerLimits>
}

interface ScannerLimits {
  readonly queueMax: number
  readonly identitiesMax: number
  readonly scanBytesMax: number
  readonly hashBytesMax: number
  readonly fileTimeoutMs: number
  readonly startTimeoutMs: number
  /** A child without work for so long is ended; the next file starts another. */
  readonly idleMs: number
  readonly residentBytesMax: number
  readonly restartMinMs: number
  readonly restartMaxMs: number
}

const SCANNER_LIMITS: ScannerLimits = {
  queueMax: 2_048,
  identitiesMax: 16_384,
  scanBytesMax: 64 * 1024 ** 2,
  hashBytesMax: 1024 ** 3,
  fileTimeoutMs: 10_000,
  startTimeoutMs: 30_000,
  idleMs: 20_000,
  residentBytesMax: 512 * 1024 ** 2,
  restartMinMs: 200,
  restartMaxMs: 30_000,
}

export interface ScannerStatus {
  /** `resting`: no child, because there is no work; `waiting`: a child was lost, the next starts soon. */
  readonly state: 'stopped' | 'starting' | 'ready' | 'resting' | 'waiting'
  readonly pid: number | null
  /** `yara-x`, or `none`: files are hashed and not scanned. */
  readonly engine: string
  readonly isolation: readonly string[]
  readonly ruleProblems: readonly string[]
  readonly scanned: number
  readonly cached: number
  /** By reason; nothing is skipped in silence. */
  readonly skipped: Readonly<Record<SkipReason, number>>
  readonly restarts: number
  readonly queued: number
}

export interface Scanner {
  /** Keeps a child running while there is work, and works the queue off until `signal` aborts; then the rest is `stopped`. */
  run(signal: AbortSignal): Promise<void>
  /** Calls the listener once, at once when the result is known. It must not throw. */
  submit(target: ScanTarget, listener: OutcomeListener): void
  examine(target: ScanTarget): Promise<ScanOutcome>
  /** SHA-256 of a content that was read before; a look into a map. */
  knownHash(identity: FileIdentity): string | undefined
  status(): ScannerStatus
}

/**
 * A path that was examined more than three times within ten seconds rests twenty times as long as that took, and
 * at least a second: a log or a database that is written without end takes a twentieth of the scanner, and new
 * files do not wait behind it. What it holds in the end is examined all the same.
 */
const BURST_MAX = 3
const BURST_MS = 10_000
const REST_FACTOR = 20
const REST_MS_MIN = 1_000
const REST_MS_MAX = 60_000
const RECENT_PATHS_MAX = 4_096
/** Longer is as good as without end: `submit` and the end of the child wake earlier. */
const WAIT_MS_MAX = 2 * REST_MS_MAX
/** A child that lived this long is sound: the next restart is quick again. */
const SOUND_AFTER_MS = 10_000

interface Known {
  readonly facts: ContentFacts
  /** Under which it is found; the kernel may name the device by another number than stat(2) does. */
  readonly told: FileIdentity
  readonly identity: OpenedIdentity
}

export function createScanner(options: ScannerOptions): Scanner {
  const limits: ScannerLimits = { ...SCANNER_LIMITS, ...options.limits }
  const { logger, clock } = options
  const queue = createScanQueue(limits.queueMax)
  /** By path: how often a written file was examined of late, and when it may be again. */
  const recent = createLru<{ sinceMs: number; count: number; restsUntilMs: number }>(RECENT_PATHS_MAX)
  const ownFiles = createOwnFiles(options.ownFolders, clock)
  const byInode = createLru<Known>(limits.identitiesMax)
  const byContent = createLru<ContentFacts>(limits.identitiesMax)
  const skipped = Object.fromEntries(SKIP_REASONS.map((reason) => [reason, 0])) as Record<SkipReason, number>
  let wake: (() => void) | null = null
  let isStopped = false
  let state: ScannerStatus['state'] = 'stopped'
  let child: ScannerChild | null = null
  let scanned = 0
  let cached = 0
  let restarts = 0
  let about = { engine: 'none', isolation: [] as readonly string[], problems: [] as readonly string[] }

  /** An inode has one content at a time, so size and change time are compared, not part of the key. */
  function knownFile(identity: FileIdentity): Known | undefined {
    const known = byInode.get(inodeKey(identity))
    const isSame =
      known !== undefined &&
      known.told.sizeBytes === identity.sizeBytes &&
      known.told.changedNs === identity.changedNs
    return isSame ? known : undefined
  }

  function deliver(job: ScanJob, outcome: ScanOutcome): void {
    if (outcome.kind === 'skipped') skipped[outcome.reason] += job.listeners.length
    for (const listener of job.listeners) listener(outcome)
  }

  function skip(job: ScanJob, reason: SkipReason, detail: string): void {
    deliver(job, { kind: 'skipped', reason, detail })
  }

  function remember(told: FileIdentity | null, reply: ExaminedReply, identity: OpenedIdentity): ContentFacts {
    const facts: ContentFacts = {
      hashes: reply.hashes,
      hits: reply.hits,
      scannedBytes: reply.scannedBytes,
      scanProblem: reply.scanProblem,
    }
    // A content that changed while it was read, or was not read to its end, is looked at again next time.
    const isSteady = reply.sizeBytes === identity.sizeBytes && BigInt(reply.changedNs) === identity.changedNs
    const isWhole = reply.scanProblem === null || reply.scanProblem === 'no-engine'
    if (!isSteady || !isWhole) return facts
    // Files of equal content share one object.
    const same = reply.hashes === null ? undefined : byContent.get(reply.hashes.sha256)
    const shared = same ?? facts
    if (reply.hashes !== null) byContent.set(reply.hashes.sha256, shared)
    byInode.set(inodeKey(identity), { facts: shared, told: identity, identity })
    const isUnchanged =
      told !== null && told.sizeBytes === identity.sizeBytes && told.changedNs === identity.changedNs
    if (isUnchanged && told.device !== identity.device) {
      byInode.set(inodeKey(told), { facts: shared, told, identity })
    }
    return shared
  }

  async function work(job: ScanJob, worker: ScannerChild): Promise<void> {
    const opened = await openTarget(job.target, ownFiles)
    if (opened.kind === 'skipped') {
      skip(job, opened.reason, opened.detail)
      return
    }
    try {
      const known = knownFile(opened.identity)
      if (known !== undefined) {
        cached += job.listeners.length
        deliver(job, { kind: 'examined', facts: known.facts, identity: opened.identity })
        return
      }
      await examineOpened(job, worker, opened.handle.fd, opened.identity)
    } finally {
      await opened.handle.close()
    }
  }

  function noteWritten(key: string, tookMs: number): void {
    const nowMs = clock()
    const before = recent.get(key)
    const count = before !== undefined && nowMs - before.sinceMs < BURST_MS ? before.count + 1 : 1
    const restMs = Math.min(REST_MS_MAX, Math.max(REST_MS_MIN, REST_FACTOR * tookMs))
    recent.set(key, {
      sinceMs: count === 1 || before === undefined ? nowMs : before.sinceMs,
      count,
      restsUntilMs: count > BURST_MAX ? nowMs + restMs : 0,
    })
  }

  async function examineOpened(job: ScanJob, worker: ScannerChild, fd: number, identity: OpenedIdentity) {
    const startedMs = clock()
    const answer = await worker.examine(fd)
    if (job.target.why === 'written') noteWritten(job.key, Math.max(0, clock() - startedMs))
    switch (answer.kind) {
      case 'reply':
        if (answer.reply.kind === 'unreadable') {
          skip(job, 'unreadable', answer.reply.code)
          return
        }
        scanned += 1
        deliver(job, {
          kind: 'examined',
          facts: remember(job.target.identity, answer.reply, identity),
          identity,
        })
        return
      case 'timeout':
      case 'memory':
        skip(job, answer.kind, 'the scanner was ended because of it')
        return
      case 'lost':
        job.lostCount += 1
        // Once may be bad luck; a file that is there each time is the likely cause.
        if (job.lostCount < 2 && !isStopped) queue.putBack(job)
        else skip(job, isStopped ? 'stopped' : 'crashed', answer.why)
    }
  }

  /**
   * Until `submit`, the end of the child, or the time given. A race against `exited` here would hold one more
   * reaction for each file as long as the child lives.
   */
  async function awaitWake(untilMs: number): Promise<void> {
    const waitMs = Math.max(1, untilMs - clock())
    const timer = waitMs < WAIT_MS_MAX ? setTimeout(() => wake?.(), waitMs) : undefined
    await new Promise<void>((resolve) => {
      wake = resolve
    })
    wake = null
    clearTimeout(timer)
  }

  /** Null: the child is to end. */
  async function nextJob(worker: ScannerChild, signal: AbortSignal): Promise<ScanJob | null> {
    const idleUntilMs = clock() + limits.idleMs
    for (;;) {
      if (signal.aborted || worker.isGone()) return null
      const job = queue.take(clock())
      if (job !== null) return job
      if (clock() >= idleUntilMs) return null
      await awaitWake(Math.min(queue.nextDueMs(), idleUntilMs))
    }
  }

  async function awaitWork(signal: AbortSignal): Promise<void> {
    const stop = () => wake?.()
    signal.addEventListener('abort', stop, { once: true })
    while (!signal.aborted && queue.nextDueMs() > clock()) await awaitWake(queue.nextDueMs())
    signal.removeEventListener('abort', stop)
  }

  /** One child, from its start to its end. True: it was ended because there was nothing to do. */
  async function runChild(signal: AbortSignal): Promise<boolean> {
    let isIdle = false
    const worker = startScannerChild({
      start: options.startProcess,
      descriptors: options.descriptors,
      setup: {
        sources: options.sources,
        scanBytesMax: limits.scanBytesMax,
        hashBytesMax: limits.hashBytesMax,
        // The engine gives up first where it can, which costs less than a new child.
        scanTimeoutMs: Math.max(500, limits.fileTimeoutMs - 2_000),
        dataBytesMax: limits.residentBytesMax * 2,
      },
      startTimeoutMs: limits.startTimeoutMs,
      fileTimeoutMs: limits.fileTimeoutMs,
      residentBytesMax: limits.residentBytesMax,
    })
    child = worker
    worker.exited.then(() => wake?.())
    const stop = () => void worker.stop()
    signal.addEventListener('abort', stop, { once: true })
    try {
      if (worker.pid > 0) options.onSpawn?.(worker.pid)
      const ready = await worker.ready
      if (ready !== null) {
        about = ready
        state = 'ready'
        logger.info({ pid: worker.pid, isolation: ready.isolation, engine: ready.engine }, 'scanner is ready')
        for (const problem of ready.problems) logger.warn({ problem }, 'a rule was left out')
        for (let job = await nextJob(worker, signal); job !== null; job = await nextJob(worker, signal)) {
          await work(job, worker)
        }
        isIdle = !signal.aborted && !worker.isGone()
      }
    } finally {
      signal.removeEventListener('abort', stop)
      await worker.stop()
      child = null
    }
    if (!signal.aborted && !isIdle) logger.warn({ why: await worker.exited }, 'scanner ended')
    return isIdle
  }

  function submit(target: ScanTarget, listener: OutcomeListener): void {
    const known = target.identity === null ? undefined : knownFile(target.identity)
    if (known !== undefined) {
      cached += 1
      listener({ kind: 'examined', facts: known.facts, identity: known.identity })
      return
    }
    if (isStopped) {
      skipped.stopped += 1
      listener({ kind: 'skipped', reason: 'stopped', detail: 'the scanner is stopped' })
      return
    }
    const key = targetKey(target)
    const untilMs = target.why === 'written' ? (recent.get(key)?.restsUntilMs ?? 0) : 0
    for (const dropped of queue.add(key, target, listener, untilMs > clock() ? untilMs : 0)) {
      skip(dropped, 'queue-full', 'more files than can be examined')
    }
    wake?.()
  }

  return {
    async run(signal) {
      const backoff = createBackoff(limits.restartMinMs, limits.restartMaxMs, options.random)
      while (!signal.aborted) {
        const startedMs = clock()
        state = 'starting'
        try {
          if (await runChild(signal)) {
            state = 'resting'
            await awaitWork(signal)
            continue
          }
        } catch (error) {
          logger.error({ error: String(error) }, 'scanner cannot be started')
        }
        if (signal.aborted) break
        restarts += 1
        state = 'waiting'
        if (clock() - startedMs >= SOUND_AFTER_MS) backoff.reset()
        await pause(backoff.next(), signal)
      }
      isStopped = true
      state = 'stopped'
      for (const job of queue.takeAll()) skip(job, 'stopped', 'the agent stops')
    },
    submit,
    examine: (target) => new Promise((resolve) => submit(target, resolve)),
    knownHash: (identity) => knownFile(identity)?.facts.hashes?.sha256,
    status: () => ({
      state,
      pid: child?.pid ?? null,
      engine: about.engine,
      isolation: about.isolation,
      ruleProblems: about.problems,
      scanned,
      cached,
      skipped: { ...skipped },
      restarts,
      queued: queue.size,
    }),
  }
}

function inodeKey(identity: FileIdentity): string {
  return `${identity.device}:${identity.inode}`
}

/** One entry for each content that waits; where that is unknown, for each path. */
function targetKey(target: ScanTarget): string {
  if (target.identity !== null) return `${inodeKey(target.identity)}:${target.identity.changedNs}`
  // Told apart by their first letter: bytes read as Latin-1 may spell another file's name.
  return typeof target.path === 'string'
    ? `text ${target.path}`
    : `bytes ${Buffer.from(target.path).toString('latin1')}`
}
