/**
 * Reads detection content from folders: YARA rules from `yara/*.yar` and indicators from `indicators/*.json`.
 * What cannot be read is named and left out; the rest stands.
 */
import { readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { type Indicator, loadIndicators } from '../ioc/indicator.ts'
import { isShipped, listFolder, readShipped, shippedFolder } from './assets.ts'

export interface YaraSource {
  /** The file's name: the namespace of its rules, and what problems are told of. */
  readonly name: string
  readonly text: string
}

export interface DetectionContent {
  readonly yaraSources: readonly YaraSource[]
  readonly indicators: readonly Indicator[]
  /** One sentence each, naming the file. */
  readonly problems: readonly string[]
}

const FILES_MAX = 4_096
const YARA_BYTES_MAX = 16 * 1024 ** 2
const INDICATOR_BYTES_MAX = 512 * 1024 ** 2

/** The content that ships with Cordon, for `readContent`. */
export function shippedContentFolder(): string {
  return shippedFolder('content')
}

/** Reads each folder in turn; the first of two indicators with one id stands. Never throws. */
export function readContent(folders: readonly string[]): DetectionContent {
  const yaraSources: YaraSource[] = []
  const indicators = new Map<string, Indicator>()
  const problems: string[] = []
  for (const folder of folders) {
    for (const file of listFiles(join(folder, 'yara'), /\.yara?$/, problems)) {
      const text = readText(file, YARA_BYTES_MAX, problems)
      if (text === null) continue
      const isTaken = yaraSources.some(({ name }) => name === basename(file))
      yaraSources.push({ name: isTaken ? file : basename(file), text })
    }
    for (const file of listFiles(join(folder, 'indicators'), /\.json$/, problems)) {
      const text = readText(file, INDICATOR_BYTES_MAX, problems)
      if (text === null) continue
      const loaded = loadIndicators(text, file)
      problems.push(...loaded.problems)
      for (const indicator of loaded.indicators) {
        if (indicators.has(indicator.id))
          problems.push(`${file}: ${indicator.id} stands in another file already`)
        else indicators.set(indicator.id, indicator)
      }
    }
  }
  return { yaraSources, indicators: [...indicators.values()], problems }
}

/** Sorted, so that what stands first does not depend on the file system. A missing folder is empty. */
function listFiles(folder: string, pattern: RegExp, problems: string[]): string[] {
  let names: string[]
  try {
    names = listFolder(folder).filter((name) => pattern.test(name))
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') problems.push(`${folder}: ${messageOf(error)}`)
    return []
  }
  if (names.length > FILES_MAX) problems.push(`${folder}: ${names.length} files, only ${FILES_MAX} are read`)
  return names
    .sort()
    .slice(0, FILES_MAX)
    .map((name) => join(folder, name))
}

function readText(path: string, bytesMax: number, problems: string[]): string | null {
  try {
    if (isShipped(path)) return readShipped(path).toString('utf8')
    const stats = statSync(path)
    if (!stats.isFile()) {
      problems.push(`${path}: not a file`)
      return null
    }
    if (stats.size > bytesMax) {
      problems.push(`${path}: larger than ${bytesMax} bytes`)
      return null
    }
    return readFileSync(path, 'utf8')
  } catch (error) {
    problems.push(`${path}: ${messageOf(error)}`)
    return null
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
