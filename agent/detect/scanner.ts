/**
 * Examines the content of files: facts and YARA rules, in a child process of its own that is ended and started
 * again when it exceeds its bounds. What it takes of the processor has a budget: files wait for it, none is dropped
 * because of it.
 */
import { createBackoff } from '../../shared/node/backoff.ts'
import type { YaraSource } from '../../shared/node/content.ts'
import type { Logger } from '../../shared/node/logger.ts'
import { pause } from '../../shared/node/loop.ts'
import type { ScannerProcess } from '../platform/linux/scanner-process.ts'
import type { FileIdentity } from '../sensors/records.ts'
import { createContentCache, inodeKey } from './content-cache.ts'
import { createCpuBudget } from './cpu-budget.ts'
import {
  type OpenedIdentity,
  openTarget,
  type ScanTarget,
  SKIP_REASONS,
  type SkipReason,
} from './open-target.ts'
import { createOwnFiles } from './own-files.ts'
import type { ScanOutcome } from './scan-outcome.ts'
import { createScanQueue, type OutcomeListener, type ScanJob } from './scan-queue.ts'
import { type DescriptorPassing, type ScannerChild, startScannerChild } from './scanner-child.ts'
import { SCANNER_LIMITS, type ScannerLimits } from './scanner-limits.ts'
import type { ScannerStatus } from './scanner-status.ts'
import { createWriteRests } from './write-rests.ts'

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

/** Kept for programs that are run: files that are merely written do not use up the whole budget. */
const EXECUTED_RESERVE = 0.2
/** Whoever waits looks again after this at the latest. */
const WAIT_MS_MAX = 60_000
/** A child that lived this long is sound: the next restart is quick again. */
const SOUND_AFTER_MS = 10_000

export function createScanner(options: ScannerOptions): Scanner {
  const limits: ScannerLimits = { ...SCANNER_LIMITS, ...options.limits }
  const { logger, clock } = options
  const queue = createScanQueue(limits.queueMax)
  const rests = createWriteRests(clock)
  const budget = createCpuBudget(limits.cpuShare, clock)
  const reserveMs = EXECUTED_RESERVE * limits.cpuShare * 60_000
  const ownFiles = createOwnFiles(options.ownFolders, clock)
  const contents = createContentCache(limits.identitiesMax)
  const skipped = Object.fromEntries(SKIP_REASONS.map((reason) => [reason, 0])) as Record<SkipReason, number>
  let wake: (() => void) | null = null
  let isStopped = false
  let state: ScannerStatus['state'] = 'stopped'
  let child: ScannerChild | null = null
  let scanned = 0
  let cached = 0
  let restarts = 0
  let about = { engine: 'none', isolation: [] as readonly string[], problems: [] as readonly string[] }

  function deliver(job: ScanJob, outcome: ScanOutcome): void {
    if (outcome.kind === 'skipped') skipped[outcome.reason] += job.listeners.length
    for (const listener of job.listeners) listener(outcome)
  }

  function skip(job: ScanJob, reason: SkipReason, detail: string): void {
    deliver(job, { kind: 'skipped', reason, detail })
  }

  async function work(job: ScanJob, worker: ScannerChild): Promise<void> {
    const opened = await openTarget(job.target, ownFiles)
    if (opened.kind === 'skipped') {
      skip(job, opened.reason, opened.detail)
      return
    }
    try {
      const known = contents.find(opened.identity)
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

  /** Where the child's own time cannot be told, because it is gone, the time it had counts. */
  function charge(worker: ScannerChild, tookMs: number): void {
    budget.charge(worker.takeCpuMs() ?? tookMs)
  }

  async function examineOpened(job: ScanJob, worker: ScannerChild, fd: number, identity: OpenedIdentity) {
    const startedMs = clock()
    const answer = await worker.examine(fd)
    const tookMs = Math.max(0, clock() - startedMs)
    charge(worker, tookMs)
    if (job.target.why === 'written') rests.note(job.key, tookMs)
    switch (answer.kind) {
      case 'reply':
        if (answer.reply.kind === 'unreadable') {
          skip(job, 'unreadable', answer.reply.code)
          return
        }
        scanned += 1
        deliver(job, {
          kind: 'examined',
          facts: contents.remember(job.target.identity, answer.reply, identity),
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
    const timer = setTimeout(() => wake?.(), Math.min(waitMs, WAIT_MS_MAX))
    await new Promise<void>((resolve) => {
      wake = resolve
    })
    wake = null
    clearTimeout(timer)
  }

  /** Null: the child is to end. It is not for want of work while work waits for the budget. */
  async function nextJob(worker: ScannerChild, signal: AbortSignal): Promise<ScanJob | null> {
    const idleUntilMs = clock() + limits.idleMs
    for (;;) {
      if (signal.aborted || worker.isGone()) return null
      const isDue = queue.nextDueMs() <= clock()
      const budgetWaitMs = isDue ? budget.waitMs(queue.hasExecuted ? 0 : reserveMs) : 0
      const job = isDue && budgetWaitMs === 0 ? queue.take(clock()) : null
      if (job !== null) return job
      if (!isDue && clock() >= idleUntilMs) return null
      await awaitWake(isDue ? clock() + budgetWaitMs : Math.min(queue.nextDueMs(), idleUntilMs))
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
        charge(worker, 0)
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
    const known = target.identity === null ? undefined : contents.find(target.identity)
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
    const restsUntilMs = target.why === 'written' ? rests.untilMs(key) : 0
    for (const dropped of queue.add(key, target, listener, { nowMs: clock(), restsUntilMs })) {
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
    knownHash: (identity) => contents.find(identity)?.facts.hashes?.sha256,
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
      budget: {
        share: limits.cpuShare,
        usedLastMinuteMs: budget.usedLastMinuteMs(),
        oldestWaitMs: queue.oldestWaitMs(clock()),
      },
    }),
  }
}

/** One entry for each content that waits; where that is unknown, for each path. */
function targetKey(target: ScanTarget): string {
  if (target.identity !== null) return `${inodeKey(target.identity)}:${target.identity.changedNs}`
  // Told apart by their first letter: bytes read as Latin-1 may spell another file's name.
  return typeof target.path === 'string'
    ? `text ${target.path}`
    : `bytes ${Buffer.from(target.path).toString('latin1')}`
}
