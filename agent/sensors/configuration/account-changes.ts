/** What a change of the account files means: users and groups that come, change and go. */
import type { ConfigurationChange } from '../records.ts'
import { type AccountFile, accountLine } from './account-files.ts'
import { bothTexts } from './before-and-after.ts'
import { type AccountsState, cut } from './state.ts'

/** What the files say of each other, of one root. */
export interface AccountsContext {
  /** Entries of passwd and group as they were looked at last. */
  entriesOf(file: AccountFile): ReadonlyMap<string, readonly string[]>
  /** Accounts that came, went or got another name a moment ago: what the other files say of them is no news. */
  readonly fresh: { has(name: string): boolean; add(name: string): void }
}

type Entries = ReadonlyMap<string, readonly string[]>
type Fields = readonly string[]

/** Changes of one look; what is beyond is left to the file event. */
const CHANGES_MAX = 256
/** Users of one look whose groups are told. */
const MOVED_USERS_MAX = 64
const ID_CHARACTERS_MAX = 32
const NAME_CHARACTERS_MAX = 256

const none: Entries = new Map()

export function accountChanges(
  file: AccountFile,
  path: string,
  before: AccountsState | null,
  after: AccountsState | null,
  context: AccountsContext,
): ConfigurationChange[] {
  const old = before?.entries ?? none
  const current = after?.entries ?? none
  const changes = {
    passwd: () => passwdChanges(old, current, path, context),
    shadow: () => shadowChanges(old, current, path, context),
    group: () => groupChanges(old, current, path, context),
    gshadow: () => gshadowChanges(old, current, path),
  }[file]()
  return changes.slice(0, CHANGES_MAX)
}

interface EntryChange {
  readonly before: Fields | null
  readonly after: Fields | null
}

/** An entry that goes while one with its number comes got another name. */
function compare(old: Entries, current: Entries): EntryChange[] {
  const changes: EntryChange[] = []
  const gone = new Map<string, Fields>()
  const goneById = new Map<string, string>()
  for (const [key, fields] of old) {
    if (current.has(key)) continue
    gone.set(key, fields)
    if (fields[2] !== undefined) goneById.set(fields[2], key)
  }
  for (const [key, after] of current) {
    const before = old.get(key)
    if (before !== undefined) {
      if (!sameFields(before, after)) changes.push({ before, after })
      continue
    }
    const earlierName = goneById.get(after[2] ?? '')
    const renamed = earlierName === undefined ? undefined : gone.get(earlierName)
    if (earlierName !== undefined) gone.delete(earlierName)
    changes.push({ before: renamed ?? null, after })
  }
  for (const before of gone.values()) changes.push({ before, after: null })
  return changes
}

function sameFields(one: Fields, other: Fields): boolean {
  return one.length === other.length && one.every((field, index) => field === other[index])
}

const PASSWD_FIELDS = ['name', 'password', 'uid', 'gid', 'comment', 'home', 'shell'] as const

function passwdChanges(
  old: Entries,
  current: Entries,
  path: string,
  { fresh }: AccountsContext,
): ConfigurationChange[] {
  return compare(old, current).map(({ before, after }) => {
    const fields = after ?? before ?? []
    const account = {
      ...target(fields),
      ...bothTexts(before && accountLine(before), after && accountLine(after)),
      'file.path': path,
    }
    if (before === null || after === null || before[0] !== after[0]) {
      fresh.add(fields[0] ?? '')
      if (before !== null) fresh.add(before[0] ?? '')
    }
    if (before === null) return { 'event.action': 'user-created', ...account }
    if (after === null) return { 'event.action': 'user-deleted', ...account }
    return userModified(
      account,
      PASSWD_FIELDS.filter((_, index) => before[index] !== after[index]),
    )
  })
}

function target(fields: Fields) {
  const [name = '', , id = ''] = fields
  return {
    'user.target.name': cut(name, NAME_CHARACTERS_MAX),
    ...(id === '' ? {} : { 'user.target.id': cut(id, ID_CHARACTERS_MAX) }),
  }
}

function userModified(
  account: Omit<
    Extract<ConfigurationChange, { 'event.action': 'user-modified' }>,
    'event.action' | 'cordon.change.fields'
  >,
  fields: readonly string[],
): ConfigurationChange {
  return {
    'event.action': 'user-modified',
    ...account,
    ...(fields.length === 0 ? {} : { 'cordon.change.fields': [...fields] }),
  }
}

function shadowChanges(
  old: Entries,
  current: Entries,
  path: string,
  context: AccountsContext,
): ConfigurationChange[] {
  const users = context.entriesOf('passwd')
  const changes: ConfigurationChange[] = []
  for (const name of new Set([...current.keys(), ...old.keys()])) {
    const before = old.get(name)
    const after = current.get(name)
    // With the account itself its entry comes and goes; without it, a password was given or taken.
    if ((!before || !after) && (context.fresh.has(name) || !users.has(name))) continue
    const fields = before && after ? shadowFields(before, after) : ['password']
    if (fields.length === 0) continue
    const account = users.get(name) ?? [name]
    changes.push(userModified({ ...target(account), 'file.path': path }, fields))
  }
  return changes
}

/** Fields of shadow(5): 2 is the day of the last change, 3 to 6 are ageing, 7 is the day of expiry. */
function shadowFields(before: Fields, after: Fields): string[] {
  const differs = (index: number) => (before[index] ?? '') !== (after[index] ?? '')
  const fields: string[] = []
  if (differs(1)) {
    const onlyLock = withoutLock(before[1]) === withoutLock(after[1]) && withoutLock(after[1]) !== ''
    fields.push(onlyLock ? 'locked' : 'password')
  } else if (differs(2)) {
    fields.push('last-change')
  }
  if ([3, 4, 5, 6].some(differs)) fields.push('ageing')
  if (differs(7)) fields.push('expiry')
  return fields
}

function withoutLock(mark = ''): string {
  return mark.replace(/^!/, '')
}

function groupChanges(
  old: Entries,
  current: Entries,
  path: string,
  context: AccountsContext,
): ConfigurationChange[] {
  const changes = compare(old, current)
  const groups = changes.map(({ before, after }): ConfigurationChange => {
    const [name = '', , id = ''] = after ?? before ?? []
    const group = {
      'group.name': cut(name, NAME_CHARACTERS_MAX),
      ...(id === '' ? {} : { 'group.id': cut(id, ID_CHARACTERS_MAX) }),
      ...bothTexts(before && accountLine(before), after && accountLine(after)),
      'file.path': path,
    }
    if (before === null) return { 'event.action': 'group-created', ...group }
    if (after === null) return { 'event.action': 'group-deleted', ...group }
    return { 'event.action': 'group-modified', ...group }
  })
  return [...groups, ...memberChanges(changes, { old, current }, path, context)]
}

/** Users who joined or left groups. */
function memberChanges(
  changes: readonly EntryChange[],
  { old, current }: { readonly old: Entries; readonly current: Entries },
  path: string,
  context: AccountsContext,
): ConfigurationChange[] {
  const users = context.entriesOf('passwd')
  const moved = new Set<string>()
  for (const { before, after } of changes) {
    const members = new Set(membersOf(after))
    const earlier = new Set(membersOf(before))
    for (const name of members.symmetricDifference(earlier)) moved.add(name)
  }
  return [...moved]
    .filter((name) => users.has(name) && !context.fresh.has(name))
    .slice(0, MOVED_USERS_MAX)
    .flatMap((name) => {
      const before = groupsOf(old, name)
      const after = groupsOf(current, name)
      if (before === after) return []
      const account = { ...target(users.get(name) ?? [name]), ...bothTexts(before, after), 'file.path': path }
      return [userModified(account, ['groups'])]
    })
}

function membersOf(fields: Fields | null): string[] {
  return (fields?.[3] ?? '').split(',').filter((name) => name !== '')
}

function groupsOf(groups: Entries, user: string): string {
  return [...groups.values()]
    .flatMap((fields) => (membersOf(fields).includes(user) ? [fields[0]] : []))
    .join(',')
}

/** Members stand in group, too; here it is the password and the administrators that are news. */
function gshadowChanges(old: Entries, current: Entries, path: string): ConfigurationChange[] {
  return [...current].flatMap(([name, after]): ConfigurationChange[] => {
    const before = old.get(name)
    if (!before) return []
    const changed = ['password', 'administrators'].filter(
      (_, index) => before[index + 1] !== after[index + 1],
    )
    if (changed.length === 0) return []
    const told = `changed: ${changed.join(', ')}`
    return [
      {
        'event.action': 'group-modified',
        'group.name': cut(name, NAME_CHARACTERS_MAX),
        ...bothTexts(null, told),
        'file.path': path,
      },
    ]
  })
}
