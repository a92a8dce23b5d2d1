/** `cordon-agent scan`: the scanner and the indicators on paths that a person names. Changes nothing. */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { compileIndicators } from '../../shared/ioc/matcher.ts'
import { type DetectionContent, readContent, shippedContentFolder } from '../../shared/node/content.ts'
import type { Logger } from '../../shared/node/logger.ts'
import { createDetection } from '../detect/detection.ts'
import { type PathMatch, scanPath } from '../detect/scan-path.ts'
import { createScanner } from '../detect/scanner.ts'
import { loadNative } from '../native/addon.ts'
import { scannerProgram } from '../platform/linux/program.ts'
import { startScannerProcess } from '../platform/linux/scanner-process.ts'

export interface ScanOnDemandOptions {
  readonly paths: readonly string[]
  /** Rule files or folders; empty: what ships, and the content folders. */
  readonly rules: readonly string[]
  readonly contentFolders: readonly string[]
  readonly filesMax: number
  readonly json: boolean
  readonly signal: AbortSignal
  readonly logger: Logger
}

const RULE_FILE = /\.yara?$/
const PROGRESS_INTERVAL_MS = 200
/** Below it the start of the scanner is most of the time, and a rate would mislead. */
const RATE_TOLD_BYTES_MIN = 1_000_000

/** Exit code: 0 nothing found, 1 something found, 2 what was asked for cannot be done. */
export async function scanOnDemand(options: ScanOnDemandOptions): Promise<number> {
  if (!(options.filesMax >= 1)) return refuse('--files-max must be a number of at least 1')
  const missing = options.paths.find((path) => !exists(path))
  if (missing !== undefined) return refuse(`${missing} is not there`)
  const content = readRules(options)
  for (const problem of content.problems) process.stderr.write(`cordon-agent: ${problem}\n`)
  if (content.yaraSources.length === 0 && content.indicators.length === 0) return refuse('there are no rules')

  const native = loadNative()
  const stop = new AbortController()
  options.signal.addEventListener('abort', () => stop.abort(), { once: true })
  const scanner = createScanner({
    sources: content.yaraSources,
    startProcess: (socket) => startScannerProcess(scannerProgram(), socket),
    descriptors: native.ok ? native.native : null,
    ownFolders: [],
    logger: options.logger,
    clock: Date.now,
    // A person waits for it.
    limits: { cpuShare: 1 },
  })
  const detection = createDetection({
    agentId: '0'.repeat(32),
    scanner,
    matcher: compileIndicators(content.indicators, Date.now()),
    processContext: () => ({
      ancestors: [],
      sessionAncestors: 0,
      sessionLeaderEntityId: undefined,
      workingDirectory: undefined,
      sha256: undefined,
    }),
    emit: () => undefined,
    clock: Date.now,
  })
  const running = scanner.run(stop.signal)
  const startedMs = performance.now()
  const total = { files: 0, bytes: 0, matches: 0, skipped: new Map<string, number>() }
  const progress = createProgress(() => scanner.status().scanned + scanner.status().cached)
  for (const path of options.paths) {
    const summary = await scanPath(path, {
      scanner,
      detection,
      filesMax: Math.max(1, options.filesMax - total.files),
      signal: stop.signal,
      onMatch: (match) => print(describe(match, options.json)),
    })
    total.files += summary.files
    total.bytes += summary.bytes
    total.matches += summary.matches
    for (const { reason, count } of summary.skipped) {
      total.skipped.set(reason, (total.skipped.get(reason) ?? 0) + count)
    }
  }
  progress.end()
  const seconds = (performance.now() - startedMs) / 1_000
  for (const problem of scanner.status().ruleProblems) process.stderr.write(`cordon-agent: ${problem}\n`)
  stop.abort()
  await running
  const summary = {
    kind: 'summary',
    files: total.files,
    bytes: total.bytes,
    megabytesPerSecond: Number((total.bytes / 1e6 / seconds).toPrecision(3)),
    matches: total.matches,
    skipped: [...total.skipped].map(([reason, count]) => ({ reason, count })),
    interrupted: options.signal.aborted,
  }
  print(options.json ? JSON.stringify(summary) : describeSummary(summary, seconds))
  return total.matches > 0 ? 1 : 0
}

function readRules(options: ScanOnDemandOptions): DetectionContent {
  if (options.rules.length === 0) return readContent([shippedContentFolder(), ...options.contentFolders])
  const problems: string[] = []
  const yaraSources = options.rules.flatMap((rule) => {
    try {
      const files = statSync(rule).isDirectory()
        ? readdirSync(rule, { recursive: true, encoding: 'utf8' }).map((name) => join(rule, name))
        : [rule]
      return files
        .filter((file) => RULE_FILE.test(file))
        .map((file) => ({ name: basename(file), text: readFileSync(file, 'utf8') }))
    } catch (error) {
      problems.push(`${rule}: ${(error as Error).message}`)
      return []
    }
  })
  return { yaraSources, indicators: [], problems }
}

function describe(match: PathMatch, json: boolean): string {
  const { finding, path, sha256, sizeBytes } = match
  if (!json) return `${finding.severity.padEnd(8)}  ${finding.engine.padEnd(4)}  ${finding.ruleName}  ${path}`
  return JSON.stringify({
    kind: 'match',
    path,
    sha256,
    sizeBytes,
    engine: finding.engine,
    rule: finding.ruleId,
    name: finding.ruleName,
    severity: finding.severity,
    techniques: finding.techniques,
    matched: finding.matched,
  })
}

function describeSummary(
  summary: {
    files: number
    bytes: number
    megabytesPerSecond: number
    matches: number
    skipped: { reason: string; count: number }[]
    interrupted: boolean
  },
  seconds: number,
): string {
  const skipped = summary.skipped.map(({ reason, count }) => `${count} ${reason}`).join(', ')
  const isLarge = summary.bytes >= RATE_TOLD_BYTES_MIN
  const size = isLarge ? `${(summary.bytes / 1e6).toFixed(1)} MB` : `${summary.bytes} bytes`
  const rate = isLarge ? ` (${summary.megabytesPerSecond} MB/s)` : ''
  return (
    `${summary.matches} matches in ${summary.files} files, ${size} in ${seconds.toFixed(1)} s${rate}` +
    `${skipped ? `; skipped: ${skipped}` : ''}${summary.interrupted ? '; INTERRUPTED' : ''}`
  )
}

/** A counting line on a terminal; nothing elsewhere. */
function createProgress(count: () => number): { end(): void } {
  if (!process.stderr.isTTY) return { end: () => undefined }
  const timer = setInterval(() => process.stderr.write(`\r${count()} files ...`), PROGRESS_INTERVAL_MS)
  return {
    end() {
      clearInterval(timer)
      process.stderr.write('\r\x1b[K')
    },
  }
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined
}

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}

function refuse(reason: string): number {
  process.stderr.write(`cordon-agent: ${reason}\n`)
  return 2
}
