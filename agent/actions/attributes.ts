/**
 * Extended attributes of files: the user's own, access control lists (`system.posix_acl_*`), file capabilities
 * (`security.capability`) and, for root, trusted ones. Names and values are bytes; a manifest keeps them in base64.
 */
import type { NativeAddon } from '../native/addon.ts'

export type AttributeCalls = Pick<
  NativeAddon,
  'listAttributes' | 'getAttribute' | 'setAttribute' | 'removeAttribute' | 'setTimes' | 'renameNew'
>

/** No file system in use lets a file carry more without meaning to be in the way. */
export const ATTRIBUTES_MAX = 256
const ATTRIBUTE_BYTES_MAX = 256 * 1024
/** Set by the kernel on every file where SELinux rules; not removable, and replaced by its own policy. */
const LABEL = Buffer.from('security.selinux')

export interface Attribute {
  readonly name: string
  readonly value: string
}

export interface KeptAttributes {
  readonly kept: 'notRead' | Attribute[]
  /** How many did not fit. A file must not escape its quarantine by carrying too many. */
  readonly left: number
}

/** What the open file carries, sorted by name. Throws what the file system answers. */
export function readAttributes(calls: AttributeCalls | null, fd: number): KeptAttributes {
  if (!calls) return { kept: 'notRead', left: 0 }
  const kept: Attribute[] = []
  let bytes = 0
  let left = 0
  for (const name of namesOf(calls, fd)) {
    const value = attributeValue(calls, fd, name)
    if (value === 'gone') continue
    const size = value === 'tooLarge' ? ATTRIBUTE_BYTES_MAX : name.length + value.length
    if (value === 'tooLarge' || kept.length === ATTRIBUTES_MAX || bytes + size > ATTRIBUTE_BYTES_MAX) {
      left += 1
      continue
    }
    bytes += size
    kept.push({ name: name.toString('base64'), value: value.toString('base64') })
  }
  kept.sort((a, b) => (a.name < b.name ? -1 : 1))
  return { kept, left }
}

/** Gives the open file these attributes and no others, such as those it inherited from its folder. */
export function writeAttributes(calls: AttributeCalls, fd: number, wanted: readonly Attribute[]): void {
  const names = new Set(wanted.map(({ name }) => name))
  for (const name of namesOf(calls, fd)) {
    if (!names.has(name.toString('base64')) && !name.equals(LABEL)) calls.removeAttribute(fd, name)
  }
  for (const { name, value } of wanted) {
    calls.setAttribute(fd, Buffer.from(name, 'base64'), Buffer.from(value, 'base64'))
  }
}

function namesOf(calls: AttributeCalls, fd: number): Buffer[] {
  let list: Buffer
  try {
    list = calls.listAttributes(fd)
  } catch (error) {
    if (codeOf(error) === 'EOPNOTSUPP') return []
    throw error
  }
  const names: Buffer[] = []
  for (let start = 0; start < list.length; ) {
    const end = list.indexOf(0, start)
    names.push(list.subarray(start, end))
    start = end + 1
  }
  return names
}

function attributeValue(calls: AttributeCalls, fd: number, name: Buffer): Buffer | 'gone' | 'tooLarge' {
  try {
    return calls.getAttribute(fd, name) ?? 'gone'
  } catch (error) {
    const code = codeOf(error)
    if (code === 'ERANGE' || code === 'E2BIG') return 'tooLarge'
    throw error
  }
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code
}
