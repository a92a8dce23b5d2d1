import { execFileSync, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { QuarantinedFileTarget } from '../../shared/protocol/commands.ts'
import { loadBuiltAddon } from '../native/testing/compile.ts'
import { createInterlock } from './interlock.ts'
import { createQuarantineAction } from './quarantine.ts'
import { createRestoreAction, type RestoreOptions } from './restore.ts'
import type { RestoreStep } from './restoring.ts'
import { createVault, type Vault } from './vault.ts'

const root = process.getuid?.() === 0
const native = loadBuiltAddon()
const never = () => AbortSignal.timeout(60_000)
const sha256Of = (content: Uint8Array | string) => createHash('sha256').update(content).digest('hex')
const newId = () => randomBytes(16).toString('hex')

let base: string
let folder: string
let vault: Vault
beforeEach(() => {
  base = realpathSync(mkdtempSync(join(tmpdir(), 'cordon-restore-')))
  folder = join(base, 'files')
  mkdirSync(folder)
  vault = vaultIn(join(base, 'vault'))
})
afterEach(() => rmSync(base, { recursive: true, force: true }))

const vaultIn = (path: string) =>
  createVault({ folder: path, fileBytesMax: 64 * 1024 ** 2, bytesMax: 128 * 1024 ** 2, attributes: native })
const interlock = () =>
  createInterlock({
    installedAsService: false,
    testRoot: base,
    testCgroup: null,
    recordedNetworkNamespace: null,
  })
const restore = (options: Partial<RestoreOptions> = {}) =>
  createRestoreAction({
    vault,
    interlock: interlock(),
    ownFolders: [join(base, 'agent')],
    native: { ok: true, native },
    ...options,
  })

/** Quarantines the file of this exact path and returns the request that brings it back. */
async function quarantined(path: Buffer) {
  const action = createQuarantineAction({ vault, interlock: interlock(), ownFolders: [], clock: Date.now })
  const stat = lstatSync(path)
  const named = { path: path.toString('utf8'), pathBytes: path.toString('base64') }
  const { sha256 } = likenessOf(path)
  const file = { kind: 'file' as const, ...named, device: `${stat.dev}`, inode: `${stat.ino}`, sha256 }
  const quarantineId = newId()
  const applied = await action.apply({ commandId: quarantineId, target: file, args: {} }, never())
  expect(applied).toMatchObject({ kind: 'applied' })
  expect(existsSync(path)).toBe(false)
  const target: QuarantinedFileTarget = { kind: 'quarantinedFile', quarantineId, ...named, sha256 }
  return { commandId: newId(), target, args: {} }
}

type Request = Awaited<ReturnType<typeof quarantined>>

async function life(action: ReturnType<typeof restore>, asked: Request) {
  const check = await action.check(asked, never())
  if (check.kind !== 'ready') return check
  const applied = await action.apply(asked, never())
  if (applied.kind !== 'applied') return applied
  return await action.probe(asked, applied.proof, never())
}

/** All that a restore gives back. The time of access is read before anything opens the file. */
function likenessOf(path: Buffer | string) {
  const { mode, uid, gid, size, atimeNs, mtimeNs } = lstatSync(path, { bigint: true })
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOATIME)
  try {
    const names = native.listAttributes(fd).toString('latin1').split('\0').filter(Boolean).sort()
    const attributes = names.map((name) => [
      name,
      native.getAttribute(fd, Buffer.from(name))?.toString('hex'),
    ])
    return { mode, uid, gid, size, atimeNs, mtimeNs, attributes, sha256: sha256Of(readFileSync(fd)) }
  } finally {
    closeSync(fd)
  }
}

function withFile(path: Buffer | string, use: (fd: number) => void): void {
  const fd = openSync(path, 'r+')
  try {
    use(fd)
  } finally {
    closeSync(fd)
  }
}

/** struct posix_acl_xattr_header and its entries: owner rwx, user 12345 r-x, group r-x, mask r-x, others none. */
const ACCESS_LIST = Buffer.from(
  [
    '02000000',
    '01000700ffffffff',
    '0200050039300000',
    '04000500ffffffff',
    '10000500ffffffff',
    '20000000ffffffff',
  ].join(''),
  'hex',
)
/** vfs_cap_data, revision 2, effective: CAP_NET_BIND_SERVICE permitted. */
const CAPABILITY = Buffer.from('0100000200040000000000000000000000000000', 'hex')

test.skipIf(!root)('a file comes back with every byte of its content and all that it carried', async () => {
  // A name that no text shows.
  const path = Buffer.concat([Buffer.from(`${folder}/f`), Buffer.from([0xff, 0xfe, 0x0a])])
  writeFileSync(path, randomBytes(700_001))
  chownSync(path, 1_234, 4_321)
  withFile(path, (fd) => {
    native.setAttribute(fd, Buffer.from('user.note'), Buffer.from([0, 1, 2, 255]))
    native.setAttribute(fd, Buffer.from('user.empty'), Buffer.alloc(0))
    native.setAttribute(fd, Buffer.from('system.posix_acl_access'), ACCESS_LIST)
    native.setAttribute(fd, Buffer.from('security.capability'), CAPABILITY)
    native.setAttribute(fd, Buffer.from('trusted.mark'), Buffer.from('trusted'))
    native.setTimes(fd, 1_000_000_000_123_456_789n, 1_600_000_000_987_654_321n)
  })
  const before = likenessOf(path)
  expect(before.attributes).toHaveLength(5)
  const asked = await quarantined(path)
  const action = restore()
  expect(await action.check(asked, never())).toEqual({ kind: 'ready' })
  const applied = await action.apply(asked, never())
  expect(applied).toMatchObject({ kind: 'applied' })
  expect(likenessOf(path)).toEqual(before)
  // The quarantine keeps its copy until the probe has seen the file.
  expect(vault.manifest(asked.target.quarantineId)).not.toBeNull()
  const proof = applied.kind === 'applied' ? applied.proof : null
  expect(await action.probe(asked, proof, never())).toMatchObject({
    kind: 'proved',
    proof: { inQuarantine: false, differs: '', extendedAttributes: 5 },
  })
  expect(vault.listQuarantine()).toEqual([])
  expect(readdirSync(vault.folder)).toEqual([])
  expect(readdirSync(folder)).toHaveLength(1)
})

test.each([0o4755, 0o2750, 0o1600, 0o400])('mode %o comes back whole', async (mode) => {
  const path = join(folder, 'f')
  writeFileSync(path, 'content')
  chmodSync(path, mode)
  const before = likenessOf(path)
  expect(Number(before.mode) & 0o7777).toBe(mode)
  const asked = await quarantined(Buffer.from(path))
  expect(await life(restore(), asked)).toMatchObject({ kind: 'proved' })
  expect(likenessOf(path)).toEqual(before)
})

test('times before 1970 and an empty file come back', async () => {
  const path = join(folder, 'f')
  writeFileSync(path, '')
  withFile(path, (fd) => native.setTimes(fd, -1n, -1_500_000_001n))
  const before = likenessOf(path)
  const asked = await quarantined(Buffer.from(path))
  expect(await life(restore(), asked)).toMatchObject({ kind: 'proved' })
  expect(likenessOf(path)).toEqual(before)
})

test('what the folder hands down to new files is not added to the one that comes back', async () => {
  const path = join(folder, 'f')
  writeFileSync(path, 'content')
  const before = likenessOf(path)
  const asked = await quarantined(Buffer.from(path))
  const fd = openSync(folder, 'r')
  native.setAttribute(fd, Buffer.from('system.posix_acl_default'), ACCESS_LIST)
  closeSync(fd)
  writeFileSync(join(folder, 'other'), '')
  expect(likenessOf(join(folder, 'other')).attributes).not.toEqual([])
  expect(await life(restore(), asked)).toMatchObject({ kind: 'proved' })
  expect(likenessOf(path)).toEqual(before)
})

test('other names of the file are told as not made again', async () => {
  const path = join(folder, 'f')
  writeFileSync(path, 'content')
  linkSync(path, join(base, 'elsewhere'))
  const asked = await quarantined(Buffer.from(path))
  const applied = await restore().apply(asked, never())
  expect(applied).toMatchObject({
    kind: 'applied',
    reason: /1 other names .* not made again/,
    proof: { otherLinksNotRestored: 1 },
  })
})

test.each([
  ['a file', (path: string) => writeFileSync(path, 'newcomer')],
  ['a link', (path: string) => symlinkSync('/etc/hostname', path)],
  ['a link to nothing', (path: string) => symlinkSync('nowhere', path)],
  ['a folder', (path: string) => mkdirSync(path)],
])('%s that has the name meanwhile is never overwritten', async (_what, make) => {
  const path = join(folder, 'f')
  writeFileSync(path, 'content')
  const asked = await quarantined(Buffer.from(path))
  make(path)
  expect(await restore().check(asked, never())).toMatchObject({ kind: 'refused', code: 'nameTaken' })
  rmSync(path, { recursive: true })
  // It may also come at the last instant, when everything else is ready.
  const late = restore({ step: (step) => step === 'dressed' && make(path) })
  const inode = () => lstatSync(path).ino
  expect(await late.apply(asked, never())).toMatchObject({ kind: 'refused', code: 'nameTaken' })
  expect(readdirSync(folder)).toEqual(['f'])
  expect(inode()).toBeGreaterThan(0)
  expect(await vault.verify(asked.target.quarantineId, never())).toMatchObject({ kind: 'intact' })
  rmSync(path, { recursive: true })
  expect(await life(restore(), asked)).toMatchObject({ kind: 'proved' })
  expect(readFileSync(path, 'utf8')).toBe('content')
})

test('a folder that is gone, or exchanged for a link, is refused with what to do', async () => {
  const directory = join(folder, 'd')
  mkdirSync(directory)
  writeFileSync(join(directory, 'f'), 'content')
  const asked = await quarantined(Buffer.from(join(directory, 'f')))
  renameSync(directory, join(base, 'aside'))
  expect(await restore().check(asked, never())).toMatchObject({
    kind: 'refused',
    code: 'parentMissing',
    reason: /make the folder again/,
  })
  mkdirSync(join(base, 'victim'))
  symlinkSync(join(base, 'victim'), directory)
  expect(await restore().check(asked, never())).toMatchObject({ kind: 'refused', code: 'symlink' })
  expect(await restore().apply(asked, never())).toMatchObject({ kind: 'refused', code: 'symlink' })
  expect(readdirSync(join(base, 'victim'))).toEqual([])
})

test('a folder that is exchanged for a link while the file is written gets nothing, nor does what the link leads to', async () => {
  const directory = join(folder, 'd')
  mkdirSync(directory)
  mkdirSync(join(base, 'victim'))
  writeFileSync(join(directory, 'f'), 'content')
  const asked = await quarantined(Buffer.from(join(directory, 'f')))
  const swapping = restore({
    step(step) {
      if (step !== 'dressed') return
      renameSync(directory, join(base, 'aside'))
      symlinkSync(join(base, 'victim'), directory)
    },
  })
  expect(await swapping.apply(asked, never())).toMatchObject({ kind: 'refused', code: 'moved' })
  expect(readdirSync(join(base, 'victim'))).toEqual([])
  expect(readdirSync(join(base, 'aside'))).toEqual([])
  expect(await vault.verify(asked.target.quarantineId, never())).toMatchObject({ kind: 'intact' })
})

test('what is not in the quarantine, or is another file than was signed for, is refused', async () => {
  writeFileSync(join(folder, 'f'), 'content')
  const asked = await quarantined(Buffer.from(join(folder, 'f')))
  const { target } = asked
  const check = (changed: Partial<QuarantinedFileTarget>) =>
    restore().check({ ...asked, target: { ...target, ...changed } }, never())
  expect(await check({ quarantineId: newId() })).toMatchObject({ code: 'notInQuarantine' })
  expect(await check({ sha256: '0'.repeat(64) })).toMatchObject({ code: 'otherFile' })
  expect(await check({ path: join(folder, 'elsewhere'), pathBytes: null })).toMatchObject({
    code: 'otherFile',
  })
  expect(await check({ path: join(folder, 'elsewhere') })).toMatchObject({ code: 'badPath' })
  expect(await restore({ ownFolders: [folder] }).check(asked, never())).toMatchObject({ code: 'denied' })
  const outside = createInterlock({
    installedAsService: false,
    testRoot: join(base, 'vault'),
    testCgroup: null,
    recordedNetworkNamespace: null,
  })
  expect(await restore({ interlock: outside }).check(asked, never())).toMatchObject({
    code: 'denied',
    reason: /testRoot/,
  })
})

test('without the addon nothing is restored, and nothing is lost', async () => {
  writeFileSync(join(folder, 'f'), 'content')
  const asked = await quarantined(Buffer.from(join(folder, 'f')))
  const without = restore({ native: { ok: false, reason: 'the native addon is missing' } })
  expect(await without.check(asked, never())).toMatchObject({
    kind: 'refused',
    code: 'noAddon',
    reason: /native addon is missing/,
  })
  expect(await without.apply(asked, never())).toMatchObject({ kind: 'refused', code: 'noAddon' })
  expect(readdirSync(folder)).toEqual([])
  expect(await vault.verify(asked.target.quarantineId, never())).toMatchObject({ kind: 'intact' })
})

test('a damaged copy gives no file, and stays for whoever looks into it', async () => {
  writeFileSync(join(folder, 'f'), randomBytes(600_000))
  const asked = await quarantined(Buffer.from(join(folder, 'f')))
  const content = join(vault.folder, `${asked.target.quarantineId}.content`)
  const bytes = readFileSync(content)
  bytes[599_999] = (bytes[599_999] ?? 0) ^ 1
  writeFileSync(content, bytes)
  expect(await restore().apply(asked, never())).toMatchObject({ kind: 'failed', reason: /damaged/ })
  expect(readdirSync(folder)).toEqual([])
  expect(existsSync(content)).toBe(true)
})

test('a probe that finds something else keeps the quarantined copy and says what differs', async () => {
  const path = join(folder, 'f')
  writeFileSync(path, 'content')
  const asked = await quarantined(Buffer.from(path))
  const action = restore()
  expect(await action.probe(asked, null, never())).toMatchObject({
    kind: 'disproved',
    reason: /does not exist/,
  })
  await action.apply(asked, never())
  chmodSync(path, 0o777)
  withFile(path, (fd) => native.setAttribute(fd, Buffer.from('user.added'), Buffer.from('x')))
  expect(await action.probe(asked, null, never())).toMatchObject({
    kind: 'disproved',
    proof: { differs: 'mode, extended attributes' },
  })
  expect(await vault.verify(asked.target.quarantineId, never())).toMatchObject({ kind: 'intact' })
})

test('an abort in the middle leaves nothing behind', async () => {
  writeFileSync(join(folder, 'f'), randomBytes(900_000))
  const asked = await quarantined(Buffer.from(join(folder, 'f')))
  const abort = new AbortController()
  const action = restore({ step: (step) => step === 'halfWritten' && abort.abort() })
  expect(await action.apply(asked, abort.signal)).toEqual({ kind: 'aborted' })
  expect(readdirSync(folder)).toEqual([])
})

test.skipIf(!root)(
  'without room on the file system it is refused, and when it runs out nothing half stays',
  async () => {
    const mount = join(folder, 'mount')
    mkdirSync(mount)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'cordon-test', mount])
    try {
      writeFileSync(join(mount, 'f'), randomBytes(600_000))
      const asked = await quarantined(Buffer.from(join(mount, 'f')))
      writeFileSync(join(mount, 'other'), randomBytes(700_000))
      expect(await restore().check(asked, never())).toMatchObject({ kind: 'refused', code: 'noRoom' })
      rmSync(join(mount, 'other'))
      const filling = restore({
        step: (step) => step === 'halfWritten' && writeFileSync(join(mount, 'other'), randomBytes(700_000)),
      })
      // The filler may fail itself for want of room: either way the restore has none left.
      const answer = await filling.apply(asked, never()).catch(() => ({ kind: 'filled' }))
      expect(['failed', 'filled']).toContain(answer.kind)
      expect(readdirSync(mount)).toEqual(['other'])
      rmSync(join(mount, 'other'))
      expect(await life(restore(), asked)).toMatchObject({ kind: 'proved' })
    } finally {
      execFileSync('umount', [mount])
    }
  },
)

const steps: RestoreStep[] = [
  'privateFolder',
  'halfWritten',
  'written',
  'dressed',
  'placed',
  'unlinked',
  'done',
  'proved',
  'forgotten',
]
test.each(steps)(
  'killed at %s the file is whole in the vault or in its place, and a restart ends it',
  async (at) => {
    const path = join(folder, 'f')
    writeFileSync(path, randomBytes(600_000))
    chmodSync(path, 0o4755)
    withFile(path, (fd) => native.setTimes(fd, 1_000_000_000_123_456_789n, 1_600_000_000_987_654_321n))
    const before = likenessOf(path)
    const asked = await quarantined(Buffer.from(path))
    const here = (name: string) => JSON.stringify(join(import.meta.dirname, name))
    const script = `
    import { createInterlock } from ${here('interlock.ts')}
    import { createRestoreAction } from ${here('restore.ts')}
    import { createVault } from ${here('vault.ts')}
    import { loadNative } from ${here('../native/addon.ts')}
    const { base, asked, at } = JSON.parse(process.argv[1])
    const vault = createVault({ folder: base + '/vault', fileBytesMax: 1e9, bytesMax: 1e9 })
    const interlock = createInterlock({ installedAsService: false, testRoot: base, testCgroup: null, recordedNetworkNamespace: null })
    const step = (name) => { if (name === at) process.kill(process.pid, 'SIGKILL') }
    const action = createRestoreAction({ vault, interlock, ownFolders: [], native: loadNative(), step })
    const applied = await action.apply(asked, AbortSignal.timeout(60000))
    await action.probe(asked, applied.proof, AbortSignal.timeout(60000))`
    const child = spawn(process.execPath, [
      '--input-type=module',
      '-e',
      script,
      JSON.stringify({ base, asked, at }),
    ])
    expect(await new Promise((resolve) => child.once('exit', (_code, signal) => resolve(signal)))).toBe(
      'SIGKILL',
    )
    const { quarantineId } = asked.target
    const inVault = (await vault.verify(quarantineId, never())).kind === 'intact'
    expect(inVault || existsSync(path)).toBe(true)
    if (existsSync(path)) expect(likenessOf(path)).toEqual(before)
    // As the agent does after a restart: recover, look, and apply again only what bears it.
    const action = restore()
    await action.recover?.(asked)
    const found = await action.probe(asked, null, never())
    const ended = found.kind === 'proved' ? found : await life(action, asked)
    expect(ended).toMatchObject({ kind: 'proved' })
    expect(likenessOf(path)).toEqual(before)
    expect(readdirSync(folder)).toEqual(['f'])
    expect(readdirSync(vault.folder)).toEqual([])
  },
)
