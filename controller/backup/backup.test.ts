import { createHash, randomBytes } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createZstdCompress } from 'node:zlib'
import { pack } from 'tar-stream'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openSqlite } from '../../shared/node/sqlite.ts'
import { holdStateFolder } from '../../shared/node/state-lock.ts'
import { createOperators } from '../operators/operators.ts'
import { openAuthority } from '../pki/authority.ts'
import { readOnlineKeys } from '../pki/online-keys.ts'
import { openState } from '../state/state.ts'
import { makeBackup } from './backup.ts'
import { MANIFEST_NAME, type Manifest } from './manifest.ts'
import { readBackup } from './read-backup.ts'
import { restoreBackup } from './restore.ts'
import { CHUNK_BYTES, createSealer, openSealed } from './sealed-stream.ts'
import {
  CHEAP_SCRYPT,
  foldersIn,
  makeSmallController,
  PASSPHRASE,
  type SmallController,
} from './testing/small-controller.ts'

const NOW_MS = Date.parse('2026-11-24T10:00:00.000Z')
const silent = () => undefined

let controller: SmallController
let backup: string
let manifest: Manifest
let names = 0
const fresh = (name: string) => {
  names += 1
  return join(controller.folder, `${names}-${name}`)
}

const optionsOf = (file: string) => ({
  stateFolder: controller.stateFolder,
  folders: controller.folders,
  file,
  passphrase: PASSPHRASE,
  events: false,
  evidence: false,
  controllerVersion: '0.0.0',
  nowMs: NOW_MS,
  progress: silent,
  signal: new AbortController().signal,
  scryptCost: CHEAP_SCRYPT,
})
const restoring = (file: string, into: string, passphrase = PASSPHRASE) =>
  restoreBackup({ file, into, passphrase, nowMs: NOW_MS + 1, progress: silent })
const verifying = (file: string, passphrase = PASSPHRASE) =>
  readBackup({ file, passphrase, progress: silent })

beforeAll(async () => {
  controller = await makeSmallController()
  backup = fresh('first.backup')
  manifest = (await makeBackup(optionsOf(backup))).manifest
})
afterAll(() => controller?.[Symbol.dispose]())

async function sealTo(path: string, content: Readable): Promise<void> {
  const chunks: Buffer[] = []
  await pipeline(content, await createSealer(PASSPHRASE, CHEAP_SCRYPT), async (sealed) => {
    for await (const chunk of sealed) chunks.push(chunk)
  })
  writeFileSync(path, Buffer.concat(chunks))
}

async function opened(path: string): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of openSealed(path, PASSPHRASE)) chunks.push(chunk)
  return Buffer.concat(chunks)
}

test.each([0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])(
  '%i bytes come out of a sealed stream as they went in',
  async (bytes) => {
    const path = fresh('stream')
    const content = randomBytes(bytes)
    await sealTo(path, Readable.from([content.subarray(0, 100), content.subarray(100)]))
    expect((await opened(path)).equals(content)).toBe(true)
  },
)

test('a sealed stream that is cut, reordered, extended or changed at any place does not open', async () => {
  const path = fresh('stream')
  await sealTo(path, Readable.from([randomBytes(3 * CHUNK_BYTES)]))
  const whole = readFileSync(path)
  const sealedBytes = CHUNK_BYTES + 16
  const start = whole.length - 3 * sealedBytes
  const chunk = (index: number) =>
    whole.subarray(start + index * sealedBytes, start + (index + 1) * sealedBytes)
  const header = whole.subarray(0, start)
  const flipped = (at: number) => {
    const copy = Buffer.from(whole)
    copy[at] = (copy[at] ?? 0) ^ 1
    return copy
  }
  const hostile = [
    whole.subarray(0, -1),
    whole.subarray(0, -sealedBytes),
    whole.subarray(0, start),
    Buffer.concat([header, chunk(1), chunk(0), chunk(2)]),
    Buffer.concat([header, chunk(0), chunk(2)]),
    Buffer.concat([whole, chunk(2)]),
    Buffer.concat([whole, Buffer.from('x')]),
    ...[0, 9, 12, 40, start - 1, start, start + sealedBytes, whole.length - 1].map(flipped),
    Buffer.alloc(0),
    Buffer.from('CORDONB1'),
    randomBytes(4_096),
  ]
  for (const [index, bytes] of hostile.entries()) {
    const bad = fresh(`hostile-${index}`)
    writeFileSync(bad, bytes)
    await expect(opened(bad)).rejects.toThrow(/does not open|damaged or cut off|not a backup/)
  }
})

test('a backup is for its owner alone, verifies, and says what is in it', async () => {
  expect(statSync(backup).mode & 0o777).toBe(0o600)
  expect(await verifying(backup)).toEqual(manifest)
  expect(manifest).toMatchObject({
    epoch: 1,
    keysetVersion: 1,
    auditEntries: 3,
    fleet: controller.authority.fleet,
  })
  expect(manifest.members.map(({ name }) => name)).toEqual([
    'state.db',
    'pki.db',
    'operators.db',
    'authority/authority.json',
    'authority/keyset.json',
    'authority/online-keys.json',
    'authority/root.pem',
  ])
  expect(
    readdirSync(join(controller.stateFolder, 'backup')).filter((name) => !name.startsWith('lock')),
  ).toEqual([])
})

test('neither the backup nor what it holds has a key or a passphrase in clear', async () => {
  const keys = await readOnlineKeys(controller.folders.authority, controller.keyPassphrase)
  if (!keys.ok) throw new Error(keys.error.reason)
  const { agentsIssuer, serversIssuer, commandKey } = keys.value
  const secrets = [agentsIssuer.key, serversIssuer.key, commandKey].flatMap((key) => {
    const der = key.export({ format: 'der', type: 'pkcs8' })
    // The private part stands at the end; in base64 at whatever offset.
    const tail = der.subarray(-48)
    return [tail, Buffer.from(tail.toString('hex')), ...[0, 1, 2].map((skip) => middle(tail.subarray(skip)))]
  })
  secrets.push(
    Buffer.from('PRIVATE KEY'),
    Buffer.from(controller.keyPassphrase),
    Buffer.from('passphrase of the root'),
  )
  const into = fresh('unpacked')
  await restoring(backup, into)
  const found = readdirSync(into, { recursive: true, encoding: 'utf8' })
    .map((name) => join(into, name))
    .filter((path) => statSync(path).isFile())
  expect(found.map((path) => path.slice(into.length + 1))).toContain('authority/online-keys.json')
  for (const path of [backup, ...found]) {
    const bytes = readFileSync(path)
    expect(secrets.filter((secret) => bytes.includes(secret))).toEqual([])
  }
  // The search finds what it looks for: these are the bytes of the keys themselves.
  const inClear = Buffer.from(keyText(agentsIssuer.key))
  expect(secrets.some((secret) => inClear.includes(secret))).toBe(true)
  expect(existsSync(join(into, 'passphrase'))).toBe(false)
  expect(existsSync(join(into, 'authority', 'root'))).toBe(false)
})

const keyText = (key: { export(options: { format: 'pem'; type: 'pkcs8' }): string | Buffer }) =>
  key.export({ format: 'pem', type: 'pkcs8' }).toString().replaceAll('\n', '')
/** Base64 without the ends, which depend on what stands around. */
const middle = (bytes: Buffer) => Buffer.from(bytes.toString('base64').slice(4, -8))

test('what is restored is what was backed up; it is marked, and what could be used again is ended', async () => {
  const into = fresh('restored')
  await restoring(backup, into)
  const folders = foldersIn(into)
  const state = openState(folders.state)
  expect(state.restoration.get()).toMatchObject({
    backup_ms: NOW_MS,
    restored_ms: NOW_MS + 1,
    confirmed_ms: null,
  })
  expect(state.audit.list(10).map(({ action }) => action)).toEqual([
    'controller.restore',
    'test',
    'test',
    'test',
  ])
  expect(state.counters.nextDelivery('agent')).toEqual({ epoch: 1, sequence: 2 })
  // Without the event files their ids begin anew.
  expect(state.consumer.cursor('detection')).toBe('')
  state.close()
  const authority = await openAuthority(folders.authority, controller.keyPassphrase)
  expect(authority.ok && authority.value.rootFingerprint).toBe(controller.authority.rootFingerprint)
  const operators = createOperators({ path: folders.operators })
  expect(operators.users().map(({ name }) => name)).toEqual(['ada'])
  operators.close()
  expect(rowsOf(folders.operators, 'session')).toBe(0)
  expect(rowsOf(folders.pki, 'token')).toBe(0)
  expect(rowsOf(controller.folders.operators, 'session')).toBe(1)
  expect(rowsOf(controller.folders.pki, 'token')).toBe(1)
})

function rowsOf(path: string, table: 'session' | 'token'): number {
  const db = openSqlite({ path, migrations: [], readonly: true })
  try {
    return Number(db.prepare(`SELECT count(*) FROM ${table}`).pluck().get())
  } finally {
    db.close()
  }
}

test('nothing is restored over what is there, nor while a controller runs there', async () => {
  const into = fresh('occupied')
  mkdirSync(into)
  writeFileSync(join(into, 'something'), '')
  await expect(restoring(backup, into)).rejects.toThrow(/is not empty/)
  expect(readdirSync(into)).toEqual(['something'])
  const running = fresh('running')
  using _held = holdStateFolder(running)
  await expect(restoring(backup, running)).rejects.toThrow(/a controller runs/)
})

test('a wrong passphrase, a cut file or a changed one leaves nothing behind', async () => {
  const cut = fresh('cut.backup')
  writeFileSync(cut, readFileSync(backup))
  truncateSync(cut, statSync(cut).size - 100)
  const changed = fresh('changed.backup')
  const bytes = readFileSync(backup)
  bytes[bytes.length - 200] = (bytes[bytes.length - 200] ?? 0) ^ 1
  writeFileSync(changed, bytes)
  const into = fresh('nothing')
  await expect(restoring(backup, into, 'another passphrase')).rejects.toThrow(/passphrase is wrong/)
  await expect(restoring(cut, into)).rejects.toThrow(/damaged or cut off/)
  await expect(restoring(changed, into)).rejects.toThrow(/damaged or cut off/)
  await expect(verifying(cut)).rejects.toThrow(/damaged or cut off/)
  await expect(verifying(join(into, 'missing'))).rejects.toThrow(/cannot be read: ENOENT/)
  expect(readdirSync(into).filter((name) => !name.startsWith('lock.db'))).toEqual([])
  // And the folder can still be used.
  await restoring(backup, into)
  expect(existsSync(join(into, 'state.db'))).toBe(true)
})

/** A backup by somebody who has the passphrase, with whatever members. */
async function forge(
  change: (manifest: Manifest) => unknown,
  members: readonly { name: string; content?: Buffer; type?: 'symlink' | 'file'; linkname?: string }[] = [],
): Promise<string> {
  const path = fresh('forged.backup')
  const tar = pack()
  tar.entry({ name: MANIFEST_NAME }, JSON.stringify(change(structuredClone(manifest))))
  for (const { content = Buffer.alloc(0), ...header } of members) {
    if (header.type === 'symlink') tar.entry(header)
    else tar.entry({ ...header, size: content.length }, content)
  }
  tar.finalize()
  await sealTo(path, Readable.from(tar).pipe(createZstdCompress()))
  return path
}

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
const named = (name: string) => (of: Manifest) => ({
  ...of,
  members: [...of.members, { name, bytes: 0, sha256: sha256(Buffer.alloc(0)) }],
})

test.each([
  '../escape',
  '/etc/passwd',
  'authority/../../escape',
  'evidence/..',
  'evidence/.hidden',
  'events/events-20261124T10.db/../../x',
  'passphrase',
  'authority/root/passphrase',
  'lock.db',
  'state.db\u0000',
])('a manifest that names %j is refused', async (name) => {
  const into = fresh('forged')
  await expect(restoring(await forge(named(name)), into)).rejects.toThrow(/manifest is not valid/)
  expect(existsSync(join(controller.folder, 'escape'))).toBe(false)
})

test('members that are not what the manifest says are refused before anything is in place', async () => {
  const content = Buffer.from('content')
  const claiming = (bytes: number, hash: string) => (of: Manifest) => ({
    ...of,
    members: of.members.map((member) =>
      member.name === 'state.db' ? { name: 'state.db', bytes, sha256: hash } : member,
    ),
  })
  const right = claiming(content.length, sha256(content))
  const cases: [string, RegExp][] = [
    [await forge((of) => of), /ends before state\.db/],
    [await forge((of) => ({ ...of, v: 2 })), /manifest is not valid/],
    [await forge((of) => ({ ...of, members: [] })), /lacks state\.db, pki\.db/],
    [await forge((of) => ({ ...of, members: [...of.members, of.members[0]] })), /names a member twice/],
    [await forge(right, [{ name: '../state.db', content }]), /where state\.db should be/],
    [
      await forge(right, [{ name: 'state.db', type: 'symlink', linkname: '/etc/passwd' }]),
      /\(symlink\) where/,
    ],
    [await forge(claiming(6, sha256(content)), [{ name: 'state.db', content }]), /where state\.db should be/],
    [await forge(claiming(7, '0'.repeat(64)), [{ name: 'state.db', content }]), /is not what was backed up/],
    [await forge(claiming(2 ** 52, sha256(content)), []), /bytes free, the backup needs/],
    [await forge(right, [{ name: 'state.db', content }]), /ends before pki\.db/],
  ]
  for (const [file, reason] of cases) {
    const into = fresh('forged')
    await expect(restoring(file, into)).rejects.toThrow(reason)
    expect(readdirSync(into).filter((name) => !name.startsWith('lock.db'))).toEqual([])
  }
})

test('a file that is there, a folder that is not and a second backup at once are refused in words', async () => {
  await expect(makeBackup(optionsOf(backup))).rejects.toThrow(/is there already/)
  await expect(makeBackup(optionsOf('/nonexistent/x.backup'))).rejects.toThrow(/there is no folder/)
  using _held = holdStateFolder(join(controller.stateFolder, 'backup'))
  await expect(makeBackup(optionsOf(fresh('second')))).rejects.toThrow(/another backup runs/)
})

test('a backup that is stopped leaves no file', async () => {
  const file = fresh('stopped.backup')
  const stop = new AbortController()
  const making = makeBackup({ ...optionsOf(file), signal: stop.signal, progress: () => stop.abort() })
  await expect(making).rejects.toThrow(/stopped/)
  expect(readdirSync(controller.folder).filter((name) => name.includes('stopped'))).toEqual([])
})

test('evidence goes along when it is asked for, and links in it are refused', async () => {
  const evidence = join(controller.stateFolder, 'evidence')
  mkdirSync(join(evidence, 'agent'), { recursive: true })
  writeFileSync(join(evidence, 'agent', 'collected.bin'), 'collected')
  const file = fresh('evidence.backup')
  await makeBackup({ ...optionsOf(file), evidence: true })
  const into = fresh('restored')
  await restoring(file, into)
  expect(readFileSync(join(into, 'evidence', 'agent', 'collected.bin'), 'utf8')).toBe('collected')
  symlinkSync('/etc/passwd', join(evidence, 'link'))
  await expect(makeBackup({ ...optionsOf(fresh('link.backup')), evidence: true })).rejects.toThrow(
    /no plain file of evidence/,
  )
})
