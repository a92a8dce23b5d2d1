/** Keys that may log on, as sshd(8) reads them under "AUTHORIZED_KEYS FILE FORMAT". */
import { createHash } from 'node:crypto'
import type { ConfigurationChange } from '../records.ts'
import type { Standing } from '../safe-read.ts'
import { type AuthorizedKey, cut, type KeysState } from './state.ts'

export const KEY_BYTES_MAX = 1024 * 1024
const KEYS_MAX = 2_048
const LINE_CHARACTERS_MAX = 64 * 1024
const COMMENT_CHARACTERS_MAX = 256
const OPTIONS_CHARACTERS_MAX = 1_024
const TYPE_CHARACTERS_MAX = 64
const CHANGES_MAX = 256

/** Null when there is no such file. */
export function toKeysState(standing: Standing): KeysState | null {
  if (standing.kind !== 'file') return null
  const keys = new Map<string, AuthorizedKey>()
  for (const line of standing.content.toString('utf8').split('\n')) {
    if (keys.size >= KEYS_MAX) break
    const key = parseAuthorizedKey(line)
    // With other options it is another permission.
    if (key !== null) keys.set(`${key.fingerprint} ${key.options}`, key)
  }
  return { kind: 'keys', keys }
}

/** Null for comments, empty lines and what holds no key. */
export function parseAuthorizedKey(line: string): AuthorizedKey | null {
  const text = line.trim()
  if (text === '' || text.startsWith('#') || text.length > LINE_CHARACTERS_MAX) return null
  const plain = keyAt(text)
  if (plain !== null) return { ...plain, options: '' }
  const end = endOfOptions(text)
  const afterOptions = keyAt(text.slice(end).trimStart())
  return afterOptions && { ...afterOptions, options: cut(text.slice(0, end), OPTIONS_CHARACTERS_MAX) }
}

/** Options end at the first blank outside of double quotes; a quote within is written \". */
function endOfOptions(text: string): number {
  let isQuoted = false
  for (let index = 0; index < text.length; index++) {
    const character = text[index]
    if (character === '\\' && text[index + 1] === '"') index += 1
    else if (character === '"') isQuoted = !isQuoted
    else if (!isQuoted && (character === ' ' || character === '\t')) return index
  }
  return text.length
}

function keyAt(text: string): Omit<AuthorizedKey, 'options'> | null {
  const [, type = '', encoded = '', comment = ''] =
    /^([a-zA-Z0-9@.-]+)[ \t]+([A-Za-z0-9+/]+={0,3})(?:[ \t]+(.*))?$/s.exec(text) ?? []
  if (type === '' || type.length > TYPE_CHARACTERS_MAX) return null
  const blob = Buffer.from(encoded, 'base64')
  // RFC 4253, section 6.6: a key begins with its type, and sshd refuses one that says otherwise.
  if (blob.length < 4 + type.length || blob.readUInt32BE(0) !== type.length) return null
  if (blob.toString('latin1', 4, 4 + type.length) !== type) return null
  const digest = createHash('sha256').update(blob).digest('base64').replace(/=+$/, '')
  return { fingerprint: `SHA256:${digest}`, type, comment: cut(comment.trim(), COMMENT_CHARACTERS_MAX) }
}

export function keyChanges(
  user: string | null,
  path: string,
  before: KeysState | null,
  after: KeysState | null,
): ConfigurationChange[] {
  const changes: ConfigurationChange[] = []
  const tell = (key: AuthorizedKey, isAdded: boolean) => {
    if (changes.length >= CHANGES_MAX) return
    const fields = {
      ...(user === null ? {} : { 'user.target.name': cut(user, 256) }),
      'file.path': path,
      'cordon.ssh_key.fingerprint': key.fingerprint,
      'cordon.ssh_key.type': key.type,
      ...(key.comment === '' ? {} : { 'cordon.ssh_key.comment': key.comment }),
      ...(key.options === '' ? {} : { 'cordon.ssh_key.options': key.options }),
    }
    if (isAdded) changes.push({ 'event.action': 'ssh-key-added', ...fields })
    else changes.push({ 'event.action': 'ssh-key-removed', ...fields })
  }
  for (const [name, key] of after?.keys ?? []) if (!before?.keys.has(name)) tell(key, true)
  for (const [name, key] of before?.keys ?? []) if (!after?.keys.has(name)) tell(key, false)
  return changes
}

const PATTERNS_MAX = 16
const DEFAULT_PATTERNS: readonly string[] = ['.ssh/authorized_keys', '.ssh/authorized_keys2']

/**
 * Values of AuthorizedKeysFile (sshd_config(5)), also those in Match blocks; the default ones are watched always,
 * for they are what everybody else tries first.
 */
export function keyFilePatterns(configurations: readonly string[]): string[] {
  const patterns = new Set(DEFAULT_PATTERNS)
  for (const line of configurations.join('\n').split('\n')) {
    const value = /^\s*AuthorizedKeysFile[\s=]+(.*)$/i.exec(line)?.[1]
    if (value === undefined) continue
    for (const [, quoted, plain] of value.matchAll(/"([^"]*)"|(\S+)/g)) {
      const pattern = quoted ?? plain ?? ''
      if (pattern.startsWith('#')) break
      if (pattern !== '' && pattern !== 'none' && patterns.size < PATTERNS_MAX) patterns.add(pattern)
    }
  }
  return [...patterns]
}

/** The file that a pattern names for a user; null when it uses a token that cannot be told here. */
export function keyFileOf(
  pattern: string,
  user: { readonly name: string; readonly id: string; readonly home: string },
): string | null {
  const tokens: Readonly<Record<string, string>> = {
    '%%': '%',
    '%h': user.home,
    '%u': user.name,
    '%U': user.id,
  }
  let isKnown = true
  const expanded = pattern.replace(/%./g, (token) => {
    const value = tokens[token]
    if (value === undefined) isKnown = false
    return value ?? ''
  })
  if (!isKnown) return null
  return expanded.startsWith('/') ? expanded : `${user.home.replace(/\/+$/, '')}/${expanded}`
}
