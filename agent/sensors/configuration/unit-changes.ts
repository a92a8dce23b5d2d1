/**
 * What a change below the folders of systemd means (systemd.unit(5)): units and their drop-ins come, change and go;
 * links in `.wants` and `.requires` enable them, a link to /dev/null masks them.
 */
import type { ConfigurationChange } from '../records.ts'
import { beforeAndAfter } from './before-and-after.ts'
import { cut, type TextState } from './state.ts'

export interface UnitPlace {
  /** `link` enables a unit by its name alone. */
  readonly role: 'unit' | 'drop-in' | 'link'
  readonly name: string
}

const UNIT_NAME = /^[^/]+\.(?:service|socket|path|mount|automount|swap|target|timer)$/
const NAME_CHARACTERS_MAX = 256

/** `below` is a path relative to a folder of units. Null: nothing that is told. */
export function unitPlace(below: string): UnitPlace | null {
  const slash = below.indexOf('/')
  if (slash === -1) return UNIT_NAME.test(below) ? { role: 'unit', name: below } : null
  const folder = below.slice(0, slash)
  const name = below.slice(slash + 1)
  if (name.includes('/')) return null
  if (/\.(?:wants|requires|upholds)$/.test(folder))
    return UNIT_NAME.test(name) ? { role: 'link', name } : null
  if (!folder.endsWith('.d') || !name.endsWith('.conf')) return null
  return { role: 'drop-in', name: folder.slice(0, -2) }
}

type Condition = 'absent' | 'masked' | 'alias' | 'unit'

/** systemd takes an empty file for a mask, too. */
function conditionOf(state: TextState | null, isUnitPath: (path: string) => boolean): Condition {
  if (state === null) return 'absent'
  if (state.link === '/dev/null' || state.digest === 'empty') return 'masked'
  return state.link !== null && isUnitPath(state.link) ? 'alias' : 'unit'
}

/** `isUnitPath` says whether what a link says lies in a folder of units: else the link brings a unit of its own. */
export function unitChanges(
  place: UnitPlace,
  path: string,
  before: TextState | null,
  after: TextState | null,
  isUnitPath: (path: string) => boolean,
): ConfigurationChange[] {
  if (place.role === 'link') {
    if (before !== null && after !== null) return []
    return [stateChanged(place.name, path, after === null ? 'disabled' : 'enabled')]
  }
  if (place.role === 'drop-in') return [contentChanged(place.name, path, before, after, 'change')]
  const from = conditionOf(before, isUnitPath)
  const to = conditionOf(after, isUnitPath)
  if (from === to && to !== 'unit') return []
  const changes: ConfigurationChange[] = []
  // Without its mask a unit can run again.
  if (from === 'masked') changes.push(stateChanged(place.name, path, 'enabled'))
  if (from === 'alias') changes.push(stateChanged(aliasOf(before, place.name), path, 'disabled'))
  if (to === 'masked') changes.push(stateChanged(place.name, path, 'masked'))
  if (to === 'alias') changes.push(stateChanged(aliasOf(after, place.name), path, 'enabled'))
  const old = from === 'unit' ? before : null
  const current = to === 'unit' ? after : null
  // What stood below a mask is still there.
  if (current === null && (old === null || to === 'masked')) return changes
  const kind = old === null ? 'creation' : current === null ? 'deletion' : 'change'
  changes.push(contentChanged(place.name, path, old, current, kind))
  return changes
}

function aliasOf(state: TextState | null, name: string): string {
  const link = state?.link ?? name
  return link.slice(link.lastIndexOf('/') + 1) || name
}

function stateChanged(
  name: string,
  path: string,
  operation: 'enabled' | 'disabled' | 'masked',
): ConfigurationChange {
  return {
    'event.action': 'service-state-changed',
    'service.name': cut(name, NAME_CHARACTERS_MAX),
    'cordon.operation': operation,
    'file.path': path,
  }
}

function contentChanged(
  name: string,
  path: string,
  before: TextState | null,
  after: TextState | null,
  kind: 'creation' | 'change' | 'deletion',
): ConfigurationChange {
  const fields = { 'file.path': path, ...beforeAndAfter(before, after) }
  if (name.endsWith('.timer')) {
    return {
      'event.type': kind,
      'event.action': 'scheduled-task-changed',
      'cordon.persistence.kind': 'timer',
      ...fields,
    }
  }
  const service = { 'service.name': cut(name, NAME_CHARACTERS_MAX), ...fields }
  switch (kind) {
    case 'creation':
      return { 'event.action': 'service-created', ...service }
    case 'deletion':
      return { 'event.action': 'service-deleted', ...service }
    case 'change':
      return { 'event.action': 'service-modified', ...service }
  }
}
