/**
 * Settings from a JSON file and the environment, checked against one table. All problems are told at once,
 * each naming the setting and the mend; what comes out is frozen.
 */
import { readFileSync } from 'node:fs'

interface SettingBase<Value> {
  readonly summary: string
  readonly environment: string
  readonly fallback: Value
}

export type Setting =
  | (SettingBase<string | null> & { readonly type: 'text' })
  | (SettingBase<string> & { readonly type: 'choice'; readonly choices: readonly string[] })
  | (SettingBase<number | null> & {
      readonly type: 'number'
      readonly minimum: number
      readonly maximum: number
    })
  | (SettingBase<boolean> & { readonly type: 'flag' })
  | (SettingBase<readonly string[]> & { readonly type: 'list'; readonly itemsMax: number })

export type SettingTable = Readonly<Record<string, Setting>>

type ValueOf<S extends Setting> = S extends { readonly type: 'list' }
  ? readonly string[]
  : S extends { readonly type: 'flag' }
    ? boolean
    : S extends { readonly type: 'choice'; readonly choices: readonly (infer Choice)[] }
      ? Choice
      : S extends { readonly type: 'number'; readonly fallback: infer F }
        ? F extends null
          ? number | null
          : number
        : S extends { readonly type: 'text'; readonly fallback: infer F }
          ? F extends null
            ? string | null
            : string
          : never

export type Settings<Table extends SettingTable> = { readonly [Name in keyof Table]: ValueOf<Table[Name]> }

export type SettingsResult<Table extends SettingTable> =
  | { readonly ok: true; readonly settings: Settings<Table> }
  | { readonly ok: false; readonly problems: readonly string[] }

/** Bytes of a configuration file that are read at most. */
const FILE_BYTES_MAX = 256 * 1024

/** Environment wins over the file, the file over the fallback. `file` null: no file. */
export function loadSettings<const Table extends SettingTable>(
  table: Table,
  file: string | null,
  environment: NodeJS.ProcessEnv,
): SettingsResult<Table> {
  const problems: string[] = []
  const written = file === null ? {} : readSettingsFile(file, problems)
  for (const name of Object.keys(written)) {
    if (!Object.hasOwn(table, name)) {
      problems.push(`${file}: "${name}" is not a setting; known are ${Object.keys(table).join(', ')}`)
    }
  }
  const values: Record<string, unknown> = {}
  for (const [name, setting] of Object.entries(table)) {
    const fromEnvironment = environment[setting.environment]
    if (fromEnvironment !== undefined && fromEnvironment !== '') {
      values[name] = checked(setting, fromText(setting, fromEnvironment), setting.environment, problems)
    } else if (Object.hasOwn(written, name)) {
      values[name] = checked(setting, written[name], `${file}: "${name}"`, problems)
    } else {
      values[name] = setting.fallback
    }
  }
  if (problems.length > 0) return { ok: false, problems }
  // The table drives both the checks above and the type, so the values fit it.
  return { ok: true, settings: Object.freeze(values) as Settings<Table> }
}

function readSettingsFile(file: string, problems: string[]): Record<string, unknown> {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    problems.push(
      `${file}: cannot be read (${(error as NodeJS.ErrnoException).code}); give --config another file`,
    )
    return {}
  }
  if (text.length > FILE_BYTES_MAX) {
    problems.push(`${file}: longer than ${FILE_BYTES_MAX} bytes`)
    return {}
  }
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value }
    problems.push(`${file}: must hold one JSON object`)
  } catch (error) {
    problems.push(`${file}: not JSON (${(error as Error).message})`)
  }
  return {}
}

function fromText(setting: Setting, text: string): unknown {
  switch (setting.type) {
    case 'number':
      return text.trim() === '' ? Number.NaN : Number(text)
    case 'flag':
      return text === '1' || text === 'true' ? true : text === '0' || text === 'false' ? false : text
    case 'list':
      return text.split(':').filter((item) => item !== '')
    default:
      return text
  }
}

function checked(setting: Setting, value: unknown, where: string, problems: string[]): unknown {
  const refuse = (mend: string) => {
    problems.push(`${where}: ${mend}`)
    return setting.fallback
  }
  switch (setting.type) {
    case 'text':
      return typeof value === 'string' && value.length <= 4_096 ? value : refuse('must be text')
    case 'choice':
      return typeof value === 'string' && setting.choices.includes(value)
        ? value
        : refuse(`must be one of ${setting.choices.join(', ')}`)
    case 'number':
      return typeof value === 'number' && value >= setting.minimum && value <= setting.maximum
        ? value
        : refuse(`must be a number from ${setting.minimum} to ${setting.maximum}`)
    case 'flag':
      return typeof value === 'boolean' ? value : refuse('must be true or false')
    case 'list':
      return Array.isArray(value) &&
        value.length <= setting.itemsMax &&
        value.every((item) => typeof item === 'string' && item.length <= 4_096)
        ? value
        : refuse(`must be a list of at most ${setting.itemsMax} texts`)
  }
}
