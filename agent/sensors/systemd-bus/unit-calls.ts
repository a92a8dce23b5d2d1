/**
 * What a call to systemd (org.freedesktop.systemd1(5)) does to which units. Calls that only ask are nothing; scopes
 * and slices, which every logon and container brings, are left out.
 */
import type { EventOf } from '../../../shared/events/event.ts'
import type { ConfigurationChange } from '../records.ts'
import type { Message } from './message.ts'
import type { Value } from './wire-format.ts'

type Operation = EventOf<'service-state-changed'>['cordon.operation']

export const SYSTEMD = 'org.freedesktop.systemd1'
const MANAGER = `${SYSTEMD}.Manager`
const UNIT = `${SYSTEMD}.Unit`
const UNIT_PATH = '/org/freedesktop/systemd1/unit/'
const UNITS_MAX = 64
const NAME_CHARACTERS_MAX = 256
const TEXT_CHARACTERS_MAX = 4_096

/** Calls of the manager that name one unit first. */
const UNIT_OPERATIONS: Readonly<Record<string, Operation>> = {
  StartUnit: 'started',
  StartUnitWithFlags: 'started',
  StopUnit: 'stopped',
  RestartUnit: 'restarted',
  TryRestartUnit: 'restarted',
  ReloadUnit: 'reloaded',
  ReloadOrRestartUnit: 'reloaded',
  ReloadOrTryRestartUnit: 'reloaded',
}
/** Calls of the manager that name several unit files. Without its mask a unit can run again. */
const FILE_OPERATIONS: Readonly<Record<string, Operation>> = {
  EnableUnitFiles: 'enabled',
  EnableUnitFilesWithFlags: 'enabled',
  ReenableUnitFiles: 'enabled',
  DisableUnitFiles: 'disabled',
  DisableUnitFilesWithFlags: 'disabled',
  DisableUnitFilesWithFlagsAndInstallInfo: 'disabled',
  MaskUnitFiles: 'masked',
  UnmaskUnitFiles: 'enabled',
}
/** Calls of the unit itself. */
const OWN_OPERATIONS: Readonly<Record<string, Operation>> = {
  Start: 'started',
  Stop: 'stopped',
  Restart: 'restarted',
  TryRestart: 'restarted',
  Reload: 'reloaded',
  ReloadOrRestart: 'reloaded',
  ReloadOrTryRestart: 'reloaded',
}
/** Types of jobs, as the property JobType tells them. */
const JOB_OPERATIONS: Readonly<Record<string, Operation>> = {
  start: 'started',
  stop: 'stopped',
  restart: 'restarted',
  'try-restart': 'restarted',
  reload: 'reloaded',
  'reload-or-start': 'reloaded',
  'try-reload': 'reloaded',
}

/** Empty for what changes no unit. Throws `Malformed` when the body does not hold together. */
export function changesOfCall(message: Message): ConfigurationChange[] {
  const { member, path } = message
  if (member === null || path === null) return []
  // A call need not name its interface.
  if (message.interface === UNIT || message.interface === null) {
    const operation = ownValue(OWN_OPERATIONS, member)
    if (operation !== undefined && path.startsWith(UNIT_PATH)) {
      return stateChanges([unitOfPath(path)], operation)
    }
  }
  if (message.interface !== MANAGER && message.interface !== null) return []
  const unitOperation = ownValue(UNIT_OPERATIONS, member)
  if (unitOperation !== undefined) return stateChanges([String(message.body()[0] ?? '')], unitOperation)
  const fileOperation = ownValue(FILE_OPERATIONS, member)
  if (fileOperation !== undefined) return stateChanges(filesOf(message.body()[0]), fileOperation)
  if (member === 'StartUnitReplace') return stateChanges([String(message.body()[1] ?? '')], 'started')
  return member === 'StartTransientUnit' ? transientUnit(message.body()) : []
}

/** What a job does; null: nothing that is told. */
export function changeOfJob(unit: string, type: string): ConfigurationChange | null {
  const operation = ownValue(JOB_OPERATIONS, type)
  if (operation === undefined || !isToldJob(unit)) return null
  return stateChanges([unit], operation)[0] ?? null
}

/** systemd mounts, swaps and reaches targets without end: of its own jobs, those of programs are told. */
export function isToldJob(unit: string): boolean {
  return /\.(?:service|socket|timer|path)$/.test(unit)
}

function ownValue<Content>(table: Readonly<Record<string, Content>>, name: string): Content | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined
}

function filesOf(files: Value | undefined): string[] {
  if (!Array.isArray(files)) return []
  return files.slice(0, UNITS_MAX).map((file) => {
    const path = String(file)
    return path.slice(path.lastIndexOf('/') + 1)
  })
}

function stateChanges(units: readonly string[], operation: Operation): ConfigurationChange[] {
  return units.filter(isToldUnit).map((unit) => ({
    'event.action': 'service-state-changed',
    'service.name': unit.slice(0, NAME_CHARACTERS_MAX),
    'cordon.operation': operation,
  }))
}

function isToldUnit(unit: string): boolean {
  return unit !== '' && !/\.(?:scope|slice)$/.test(unit)
}

/** StartTransientUnit(s name, s mode, a(sv) properties, a(sa(sv)) further units) */
function transientUnit([name, , properties, further]: readonly Value[]): ConfigurationChange[] {
  const unit = String(name ?? '').slice(0, NAME_CHARACTERS_MAX)
  if (!isToldUnit(unit)) return []
  const others = Array.isArray(further) ? further.slice(0, UNITS_MAX) : []
  const created = [[unit, properties ?? ''], ...others].flatMap((each: Value) => {
    const [created, values] = Array.isArray(each) ? each : []
    const createdName = String(created ?? '').slice(0, NAME_CHARACTERS_MAX)
    return isToldUnit(createdName) ? [unitCreated(createdName, values)] : []
  })
  return [...created, ...stateChanges([unit], 'started')]
}

function unitCreated(unit: string, properties: Value | undefined): ConfigurationChange {
  const change = {
    'file.path': `/run/systemd/transient/${unit}`,
    'cordon.change.after': describeProperties(properties).slice(0, TEXT_CHARACTERS_MAX),
  }
  if (!unit.endsWith('.timer')) return { 'event.action': 'service-created', 'service.name': unit, ...change }
  return {
    'event.type': 'creation',
    'event.action': 'scheduled-task-changed',
    'cordon.persistence.kind': 'timer',
    ...change,
  }
}

const LINES_MAX = 64

function describeProperties(properties: Value | undefined): string {
  if (!Array.isArray(properties)) return ''
  return properties
    .slice(0, LINES_MAX)
    .flatMap((property: Value) => {
      const [name, value] = Array.isArray(property) ? property : []
      const isCommands = typeof name === 'string' && name.startsWith('Exec') && Array.isArray(value)
      // Such as TimersCalendar: pairs of a kind and a time.
      const isTimes = typeof name === 'string' && name.startsWith('Timers') && Array.isArray(value)
      if (isTimes) return value.map((time: Value) => (Array.isArray(time) ? time.map(String).join('=') : ''))
      if (isCommands) return value.map((command: Value) => `${name}=${describeCommand(command)}`)
      return typeof value === 'string' || typeof value === 'boolean' || typeof value === 'number'
        ? [`${name}=${value}`]
        : []
    })
    .join('\n')
}

/** (s path, as arguments, b ignoring failure): the arguments begin with the name of the program. */
function describeCommand(command: Value): string {
  const [path, given] = Array.isArray(command) ? command : []
  const rest = Array.isArray(given) ? given.slice(1) : []
  return [path, ...rest].map(String).join(' ')
}

/** Object paths of units hold their names with `_xx` for every byte that is no letter or number. */
function unitOfPath(path: string): string {
  const escaped = path.slice(UNIT_PATH.length)
  const bytes = escaped.replace(/_([0-9a-f]{2})/g, (_, code: string) =>
    String.fromCharCode(Number.parseInt(code, 16)),
  )
  return Buffer.from(bytes, 'latin1').toString('utf8')
}

export function pathOfUnit(unit: string): string {
  const escaped = Buffer.from(unit)
    .toString('latin1')
    .replace(/[^A-Za-z0-9]|^[0-9]/g, (byte) => `_${byte.charCodeAt(0).toString(16).padStart(2, '0')}`)
  return UNIT_PATH + escaped
}
