import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  appendFileSync,
  chmodSync,
  closeSync,
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
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest'
import type { FileTarget } from '../../shared/protocol/commands.ts'
import type { Action } from './action.ts'
import { createInterlock } from './interlock.ts'
import { createQuarantineAction, type QuarantineOptions } from './quarantine.ts'
import type { TakingStep } from './taking.ts'
import { createVault, type Vault } from './vault.ts'

const root = process.getuid?.() === 0
const never = () => AbortSignal.timeout(60_000)
const sha256Of = (content: Uint8Array | string) => createHash('sha256').update(content).digest('hex')

let base: string
let folder: string
let vault: Vault
beforeEach(() => {
  base = realpathSync(mkdtempSync(join(tmpdir(), 'cordon-quarantine-')))
  folder = join(base, 'files')
  mkdirSync(folder)
  vault = createVault({
    folder: join(base, 'vault'),
    fileBytesMax: 64 * 1024 ** 2,
    bytesMax: 128 * 1024 ** 2,
  })
})
afterEach(() => rmSync(base, { recursive: true, force: true }))

function quarantine(options: Partial<QuarantineOptions> = {}): Action<'quarantineFile'> {
  return createQuarantineAction({
    vault,
    interlock: createInterlock({
      installedAsService: false,
      testRoot: base,
      testCgroup: null,
      recordedNetworkNamespace: null,
    }),
    ownFolders: [join(base, 'agent')],
    clock: Date.now,
    ...options,
  })
}

function targetOf(path: string): FileTarget {
  const stat = lstatSync(path)
  const sha256 = stat.isFile() ? sha256Of(readFileSync(path)) : '0'.repeat(64)
  return { kind: 'file', path, pathBytes: null, device: `${stat.dev}`, inode: `${stat.ino}`, sha256 }
}
const request = (target: FileTarget, commandId = randomBytes(16).toString('hex')) => ({
  commandId,
  target,
  args: {},
})

async function restored(id: string): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of vault.readVault(id)) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks)
}

/** check, apply, probe as the agent does; the first answer that is not the way on. */
async function life(action: Action<'quarantineFile'>, asked: ReturnType<typeof request>) {
  const check = await action.check(asked, never())
  if (check.kind === 'refused') return check
  const applied = check.kind === 'already' ? check : await action.apply(asked, never())
  if (applied.kind !== 'applied' && applied.kind !== 'already') return applied
  return await action.probe(asked, applied.proof, never())
}

test('a file is gone from its path, and the vault gives it back with all that a restore needs', async () => {
  const path = join(folder, 'dropper')
  const content = randomBytes(700_001)
  writeFileSync(path, content)
  chmodSync(path, 0o4755)
  const asked = request(targetOf(path))
  utimesSync(path, 1_000_000, 2_000_000.25)
  const stat = lstatSync(path, { bigint: true })
  expect(await life(quarantine(), asked)).toMatchObject({
    kind: 'proved',
    proof: {
      quarantineId: asked.commandId,
      pathState: 'gone',
      vaultIntact: true,
      bytes: content.length,
      contentHash: sha256Of(content),
      otherLinks: 0,
    },
  })
  expect(readdirSync(folder)).toEqual([])
  expect(await restored(asked.commandId)).toEqual(content)
  expect(vault.listQuarantine()).toMatchObject([
    {
      path,
      pathBytes: Buffer.from(path).toString('base64'),
      mode: Number(stat.mode),
      userId: Number(stat.uid),
      groupId: Number(stat.gid),
      inode: `${stat.ino}`,
      modifiedNs: `${stat.mtimeNs}`,
      accessedNs: '1000000000000000',
      links: 1,
    },
  ])
  expect(lstatSync(vault.folder).mode & 0o777).toBe(0o700)
  const stored = readFileSync(join(vault.folder, `${asked.commandId}.content`))
  expect(stored.includes(content.subarray(0, 32))).toBe(false)
})

test('an empty file is taken like any other', async () => {
  writeFileSync(join(folder, 'empty'), '')
  expect(await life(quarantine(), request(targetOf(join(folder, 'empty'))))).toMatchObject({ kind: 'proved' })
})

test('the same file asked for again is done, under its own command and under another', async () => {
  const path = join(folder, 'f')
  writeFileSync(path, 'content')
  const asked = request(targetOf(path))
  const action = quarantine()
  expect(await life(action, asked)).toMatchObject({ kind: 'proved' })
  expect(await action.check(asked, never())).toMatchObject({ kind: 'already' })
  expect(await life(action, asked)).toMatchObject({ kind: 'proved' })
  expect(await life(action, request(asked.target))).toMatchObject({
    kind: 'proved',
    proof: { quarantineId: asked.commandId },
  })
  expect(vault.listQuarantine()).toHaveLength(1)
})

test('a new file at the path is another file, even with the inode number of the old one', async () => {
  const path = join(folder, 'f')
  writeFileSync(path, 'content')
  const asked = request(targetOf(path))
  const action = quarantine()
  expect(await life(action, asked)).toMatchObject({ kind: 'proved' })
  rmSync(path, { force: true })
  writeFileSync(path, 'harmless')
  expect(await action.probe(asked, null, never())).toMatchObject({
    kind: 'proved',
    proof: { pathState: 'other' },
  })
  expect(readFileSync(path, 'utf8')).toBe('harmless')
})

test('the same content dropped again at the path is not proved away by the first quarantine', async () => {
  const path = join(folder, 'f')
  writeFileSync(path, 'content')
  const first = request(targetOf(path))
  const action = quarantine()
  // Held open, the first file keeps its inode number: no later one gets it, on any filesystem.
  const held = openSync(path, 'r')
  onTestFinished(() => closeSync(held))
  expect(await life(action, first)).toMatchObject({ kind: 'proved' })
  writeFileSync(path, 'content')
  expect(await action.probe(first, null, never())).toMatchObject({
    kind: 'disproved',
    proof: { pathState: 'sameContent' },
  })
  const second = request(targetOf(path))
  rmSync(path)
  expect(await action.check(second, never())).toMatchObject({ kind: 'refused', code: 'notFound' })
  writeFileSync(path, 'content')
  const third = request(targetOf(path))
  expect(await life(action, third)).toMatchObject({
    kind: 'proved',
    proof: { quarantineId: third.commandId },
  })
  expect(vault.listQuarantine()).toHaveLength(2)
})

test.each([
  ['the content changed', (path: string) => appendFileSync(path, 'more'), 'contentChanged'],
  ['the file was replaced', replace, 'otherFile'],
  ['the file is gone', (path: string) => rmSync(path), 'notFound'],
])('when %s after the signature it is refused, and what is there stays', async (_what, change, code) => {
  const path = join(folder, 'f')
  writeFileSync(path, 'content')
  const asked = request(targetOf(path))
  change(path)
  const before = readdirSync(folder).map((name) => readFileSync(join(folder, name), 'utf8'))
  const action = quarantine()
  expect(await action.check(asked, never())).toMatchObject({ kind: 'refused', code })
  // The application compares for itself, for a change between check and application.
  expect(await action.apply(asked, never())).toMatchObject({ kind: 'refused', code })
  expect(readdirSync(folder).map((name) => readFileSync(join(folder, name), 'utf8'))).toEqual(before)
  expect(readdirSync(vault.folder)).toEqual([])
})

function replace(path: string) {
  writeFileSync(`${path}.new`, 'content')
  renameSync(`${path}.new`, path)
}

test('other names of the file are told, and stay', async () => {
  const path = join(folder, 'f')
  writeFileSync(path, 'content')
  linkSync(path, join(folder, 'second'))
  linkSync(path, join(base, 'elsewhere'))
  const applied = await quarantine().apply(request(targetOf(path)), never())
  expect(applied).toMatchObject({ kind: 'applied', proof: { otherLinks: 2, otherNamesHere: 'second' } })
  expect(readFileSync(join(base, 'elsewhere'), 'utf8')).toBe('content')
})

test.each([
  ['a symlink', 'symlink', (path: string) => symlinkSync('/etc/hostname', path)],
  ['a symlink to itself', 'symlink', (path: string) => symlinkSync(path, path)],
  ['a directory', 'notRegular', (path: string) => mkdirSync(path)],
  ['a FIFO', 'notRegular', (path: string) => execFileSync('mkfifo', [path])],
])('%s is refused without being opened', async (_what, code, make) => {
  const path = join(folder, 'f')
  make(path)
  expect(await quarantine().check(request(targetOf(path)), never())).toMatchObject({ kind: 'refused', code })
  expect(lstatSync(path)).toBeDefined()
})

test.skipIf(!root)('a device is refused without being opened', async () => {
  const path = join(folder, 'device')
  execFileSync('mknod', [path, 'c', '1', '3'])
  expect(await quarantine().check(request(targetOf(path)), never())).toMatchObject({ code: 'notRegular' })
})

test('a symlink on the way is refused by name, also one that loops', async () => {
  writeFileSync(join(folder, 'f'), 'content')
  const target = targetOf(join(folder, 'f'))
  symlinkSync(folder, join(base, 'way'))
  symlinkSync(join(base, 'loop'), join(base, 'loop'))
  for (const way of ['way', 'loop']) {
    const asked = request({ ...target, path: join(base, way, 'f') })
    expect(await quarantine().check(asked, never())).toMatchObject({
      kind: 'refused',
      code: 'symlink',
      reason: expect.stringContaining(way),
    })
  }
})

test.each([
  '/proc/self/environ',
  `/proc/${process.pid}/environ`,
  '/proc/version',
  '/sys/kernel/mm/transparent_hugepage/enabled',
  '/dev/null',
])('%s belongs to the kernel or leads through a link: refused', async (path) => {
  const service = createInterlock({
    installedAsService: true,
    testRoot: null,
    testCgroup: null,
    recordedNetworkNamespace: null,
  })
  const target: FileTarget = {
    kind: 'file',
    path,
    pathBytes: null,
    device: null,
    inode: null,
    sha256: '0'.repeat(64),
  }
  const code = path.includes('self') ? 'symlink' : 'denied'
  expect(await quarantine({ interlock: service }).check(request(target), never())).toMatchObject({ code })
})

test('the folders of the agent and what lies outside the test root are refused', async () => {
  for (const name of ['agent', 'agent-not']) {
    mkdirSync(join(base, name))
    writeFileSync(join(base, name, 'f'), 'content')
  }
  const outside = mkdtempSync(join(tmpdir(), 'cordon-outside-'))
  try {
    writeFileSync(join(outside, 'f'), 'content')
    const check = (path: string) => quarantine().check(request(targetOf(path)), never())
    expect(await check(join(base, 'agent/f'))).toMatchObject({ code: 'denied', reason: /agent's own/ })
    expect(await check(join(outside, 'f'))).toMatchObject({ code: 'denied', reason: /testRoot/ })
    expect(await check(join(base, 'agent-not/f'))).toEqual({ kind: 'ready' })
    writeFileSync(join(vault.folder, 'f'), 'content')
    expect(await check(join(vault.folder, 'f'))).toMatchObject({ code: 'denied' })
  } finally {
    rmSync(outside, { recursive: true })
  }
})

test.each([
  'relative/f',
  '/',
  '//f',
  '/a/../f',
  '/a/./f',
  '/a/',
  '/a\0b',
  `/${'a/'.repeat(2_100)}f`,
  `/${'n'.repeat(300)}`,
])('the path %j is refused', async (path) => {
  const target: FileTarget = {
    kind: 'file',
    path,
    pathBytes: null,
    device: null,
    inode: null,
    sha256: '0'.repeat(64),
  }
  expect(await quarantine().check(request(target), never())).toMatchObject({ kind: 'refused' })
})

test('a name that is not UTF-8 is taken by its bytes, and bytes that the text does not show are refused', async () => {
  const bytes = Buffer.concat([Buffer.from(`${folder}/`), Buffer.from([0x66, 0xff, 0xfe, 0x0a])])
  writeFileSync(bytes, 'content')
  const target: FileTarget = {
    ...targetOf(folder),
    path: bytes.toString('utf8'),
    pathBytes: bytes.toString('base64'),
    device: null,
    inode: null,
    sha256: sha256Of('content'),
  }
  const hidden = { ...target, path: join(folder, 'harmless') }
  expect(await quarantine().check(request(hidden), never())).toMatchObject({ code: 'badPath' })
  const asked = request(target)
  expect(await life(quarantine(), asked)).toMatchObject({ kind: 'proved', proof: { pathState: 'gone' } })
  expect(vault.manifest(asked.commandId)?.pathBytes).toBe(bytes.toString('base64'))
  expect(readdirSync(folder)).toEqual([])
})

test('files beyond the bounds are refused with the setting to raise', async () => {
  writeFileSync(join(folder, 'large'), Buffer.alloc(2_000))
  writeFileSync(join(folder, 'small'), Buffer.alloc(900, 1))
  const small = createVault({ folder: join(base, 'small-vault'), fileBytesMax: 1_000, bytesMax: 1_000 })
  const check = (name: string) =>
    quarantine({ vault: small }).check(request(targetOf(join(folder, name))), never())
  expect(await check('large')).toMatchObject({ code: 'denied', reason: /quarantineFileBytesMax/ })
  expect(await check('small')).toEqual({ kind: 'ready' })
  await quarantine({ vault: small }).apply(request(targetOf(join(folder, 'small'))), never())
  writeFileSync(join(folder, 'small'), Buffer.alloc(900, 2))
  expect(await check('small')).toMatchObject({ code: 'denied', reason: /quarantineBytesMax/ })
})

test.skipIf(!root)('from another file system a file comes over whole', async () => {
  const mount = join(folder, 'mount')
  mkdirSync(mount)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'cordon-test', mount])
  try {
    const content = randomBytes(100_000)
    writeFileSync(join(mount, 'f'), content)
    const asked = request(targetOf(join(mount, 'f')))
    expect(await life(quarantine(), asked)).toMatchObject({ kind: 'proved' })
    expect(readdirSync(mount)).toEqual([])
    expect(await restored(asked.commandId)).toEqual(content)
  } finally {
    execFileSync('umount', [mount])
  }
})

test.skipIf(!root)('when the vault has no room the file gets its name back', async () => {
  const mount = join(base, 'tiny')
  mkdirSync(mount)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'cordon-test', mount])
  try {
    const tiny = createVault({ folder: join(mount, 'vault'), fileBytesMax: 1e9, bytesMax: 1e9 })
    const path = join(folder, 'f')
    writeFileSync(path, Buffer.alloc(200_000, 7))
    const inode = lstatSync(path).ino
    const failed = await quarantine({ vault: tiny }).apply(request(targetOf(path)), never())
    expect(failed).toMatchObject({ kind: 'failed', reason: /ENOSPC.*its name back/ })
    expect(lstatSync(path).ino).toBe(inode)
    expect(readdirSync(folder)).toEqual(['f'])
    expect(readdirSync(tiny.folder)).toEqual([])
  } finally {
    execFileSync('umount', [mount])
  }
})

test('an abort while copying gives the file its name back', async () => {
  const path = join(folder, 'f')
  writeFileSync(path, Buffer.alloc(2_000_000, 1))
  const abort = new AbortController()
  const action = quarantine({ step: (step) => step === 'taken' && abort.abort() })
  expect(await action.apply(request(targetOf(path)), abort.signal)).toEqual({ kind: 'aborted' })
  expect(readdirSync(folder)).toEqual(['f'])
  expect(readdirSync(vault.folder)).toEqual([])
})

test('what came to the name meanwhile is never overwritten when a file is put back', async () => {
  const path = join(folder, 'f')
  writeFileSync(path, 'content')
  const asked = request({ ...targetOf(path), sha256: '1'.repeat(64) })
  const action = quarantine({ step: (step) => step === 'taken' && writeFileSync(path, 'newcomer') })
  const refused = await action.apply(asked, never())
  expect(refused).toMatchObject({ kind: 'refused', code: 'contentChanged' })
  expect(refused.kind === 'refused' && refused.reason).toContain(`cordon-kept-${asked.commandId}`)
  expect(readFileSync(path, 'utf8')).toBe('newcomer')
  expect(readFileSync(join(folder, `cordon-kept-${asked.commandId}`), 'utf8')).toBe('content')
})

test('a file that is written to between copy and removal is put back', async () => {
  const path = join(folder, 'f')
  writeFileSync(path, 'content')
  const asked = request(targetOf(path))
  const taken = join(folder, `.cordon-${asked.commandId}`, 'taken')
  const action = quarantine({ step: (step) => step === 'stored' && appendFileSync(taken, 'late') })
  expect(await action.apply(asked, never())).toMatchObject({ kind: 'refused', code: 'contentChanged' })
  expect(readFileSync(path, 'utf8')).toBe('contentlate')
  expect(readdirSync(vault.folder)).toEqual([])
})

test('a vault file with a flipped bit, an exchanged manifest or no content is told as damaged', async () => {
  const ids: string[] = []
  for (const name of ['a', 'b']) {
    writeFileSync(join(folder, name), `content ${name}`)
    const asked = request(targetOf(join(folder, name)))
    await quarantine().apply(asked, never())
    ids.push(asked.commandId)
  }
  const [a = '', b = ''] = ids
  const content = (id: string) => join(vault.folder, `${id}.content`)
  expect(await vault.verify(a, never())).toMatchObject({ kind: 'intact' })
  const bytes = readFileSync(content(a))
  bytes[0] = (bytes[0] ?? 0) ^ 1
  writeFileSync(content(a), bytes)
  expect(await vault.verify(a, never())).toMatchObject({ kind: 'damaged' })
  renameSync(content(b), content(a))
  expect(await vault.verify(a, never())).toMatchObject({ kind: 'damaged' })
  expect(await vault.verify(b, never())).toMatchObject({ kind: 'damaged' })
  writeFileSync(join(vault.folder, `${b}.json`), '{"v":1}')
  expect(await vault.verify(b, never())).toEqual({ kind: 'missing' })
  expect(vault.listQuarantine()).toHaveLength(1)
})

const steps: TakingStep[] = ['privateFolder', 'taken', 'contentWritten', 'stored', 'unlinked', 'done']
test.each(steps)(
  'killed at %s the file is in its place, beside it or in the vault, and a restart ends it',
  async (at) => {
    const path = join(folder, 'f')
    const content = randomBytes(300_000)
    writeFileSync(path, content)
    const asked = request(targetOf(path))
    const script = `
    import { createInterlock } from ${JSON.stringify(join(import.meta.dirname, 'interlock.ts'))}
    import { createQuarantineAction } from ${JSON.stringify(join(import.meta.dirname, 'quarantine.ts'))}
    import { createVault } from ${JSON.stringify(join(import.meta.dirname, 'vault.ts'))}
    const { base, asked, at } = JSON.parse(process.argv[1])
    const vault = createVault({ folder: base + '/vault', fileBytesMax: 1e9, bytesMax: 1e9 })
    const interlock = createInterlock({ installedAsService: false, testRoot: base, testCgroup: null, recordedNetworkNamespace: null })
    const step = (name) => { if (name === at) process.kill(process.pid, 'SIGKILL') }
    const action = createQuarantineAction({ vault, interlock, ownFolders: [], clock: Date.now, step })
    await action.apply(asked, AbortSignal.timeout(60000))`
    const child = spawn(process.execPath, [
      '--input-type=module',
      '-e',
      script,
      JSON.stringify({ base, asked, at }),
    ])
    expect(await new Promise((resolve) => child.once('exit', (_code, signal) => resolve(signal)))).toBe(
      'SIGKILL',
    )
    const places = [path, join(folder, `.cordon-${asked.commandId}`, 'taken')].filter(existsSync)
    const inVault = await vault.verify(asked.commandId, never())
    expect(places.length + (inVault.kind === 'intact' ? 1 : 0)).toBeGreaterThan(0)
    const action = quarantine()
    await action.recover?.(asked)
    // Without a vault entry the file has its name back; with one, it is gone from everywhere else.
    expect(existsSync(path)).toBe(inVault.kind !== 'intact')
    expect(await life(action, asked)).toMatchObject({ kind: 'proved', proof: { pathState: 'gone' } })
    expect(readdirSync(folder)).toEqual([])
    expect(await restored(asked.commandId)).toEqual(content)
  },
)

test('a private folder that somebody else prepared is not trusted', async () => {
  writeFileSync(join(folder, 'f'), 'content')
  const asked = request(targetOf(join(folder, 'f')))
  const prepared = join(folder, `.cordon-${asked.commandId}`)
  mkdirSync(prepared)
  chmodSync(prepared, 0o777)
  writeFileSync(join(prepared, 'taken'), 'planted')
  const answer = await quarantine().apply(asked, never())
  expect(answer.kind).toBe('refused')
  expect(readFileSync(join(folder, 'f'), 'utf8')).toBe('content')
  expect(readFileSync(join(prepared, 'taken'), 'utf8')).toBe('planted')
})

test.each([
  [
    'the file itself',
    'const swap = () => { fs.rmSync(s, { force: true }); fs.symlinkSync(victim, s); fs.renameSync(s, f); fs.linkSync(k, s); fs.renameSync(s, f) }',
  ],
  [
    'its directory',
    'const swap = () => { fs.renameSync(d, e); fs.symlinkSync(v, d); fs.unlinkSync(d); fs.renameSync(e, d) }',
  ],
])(
  'while another process exchanges %s for a symlink in a loop, only the right inode is ever taken',
  async (_what, swap) => {
    const directory = join(folder, 'd')
    mkdirSync(directory)
    mkdirSync(join(folder, 'v'))
    const victim = join(folder, 'v', 'f')
    writeFileSync(victim, 'content')
    const path = join(directory, 'f')
    const script = `import fs from 'node:fs'
    const d = ${JSON.stringify(directory)}, e = d + '2', v = ${JSON.stringify(join(folder, 'v'))}
    const f = d + '/f', k = ${JSON.stringify(join(folder, 'k'))}, s = d + '/s', victim = v + '/f'
    ${swap}
    console.log('ready')
    for (;;) { try { swap() } catch {} }`
    let taken = 0
    for (let round = 0; round < 3; round += 1) {
      writeFileSync(path, `content ${round}`)
      linkSync(path, join(folder, 'k'))
      const asked = request(targetOf(path))
      const attacker = spawn(process.execPath, ['--input-type=module', '-e', script])
      await new Promise((resolve) => attacker.stdout.once('data', resolve))
      const answer = await quarantine().apply(asked, never())
      await end(attacker)
      expect(readFileSync(victim, 'utf8')).toBe('content')
      const manifest = vault.manifest(asked.commandId)
      if (answer.kind === 'applied') {
        taken += 1
        expect(manifest?.inode).toBe(asked.target.inode)
      } else {
        expect(answer).toMatchObject({ kind: 'refused' })
        expect(manifest).toBeNull()
      }
      expect(readFileSync(join(folder, 'k'), 'utf8')).toBe(`content ${round}`)
      for (const name of [directory, `${directory}2`].filter((name) => existsSync(name))) {
        expect(readdirSync(name).filter((entry) => entry.startsWith('.cordon-'))).toEqual([])
      }
      for (const name of ['d', 'd2', 'k']) rmSync(join(folder, name), { recursive: true, force: true })
      mkdirSync(directory)
    }
    expect(taken).toBeGreaterThan(0)
  },
)

async function end(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL')
  await new Promise((resolve) => child.once('exit', resolve))
}
