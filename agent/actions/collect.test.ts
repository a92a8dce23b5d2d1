import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  appendFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { EvidenceFileTarget } from '../../shared/protocol/commands.ts'
import type { FileSource, UploadOutcome } from '../uplink/files.ts'
import { type CollectOptions, createCollectAction } from './collect.ts'
import { createInterlock } from './interlock.ts'
import { createSpool } from './spool.ts'

const root = process.getuid?.() === 0
const never = () => AbortSignal.timeout(60_000)
const sha256Of = (content: Uint8Array) => createHash('sha256').update(content).digest('hex')

let base: string
let folder: string
/** What the controller got, and what it answers. */
let received: Buffer[]
let answer: UploadOutcome
beforeEach(() => {
  base = realpathSync(mkdtempSync(join(tmpdir(), 'cordon-collect-')))
  folder = join(base, 'files')
  mkdirSync(folder)
  received = []
  answer = { kind: 'complete' }
})
afterEach(() => rmSync(base, { recursive: true, force: true }))

const serviceInterlock = () =>
  createInterlock({
    installedAsService: true,
    testRoot: null,
    testCgroup: null,
    recordedNetworkNamespace: null,
  })

function collect(options: Partial<CollectOptions> & { bytesMax?: number; freeBytesMin?: number } = {}) {
  const { bytesMax = 1024 ** 3, freeBytesMin = 0, ...rest } = options
  return createCollectAction({
    spool: createSpool({ folder: join(base, 'collected'), bytesMax, freeBytesMin }),
    uploads: {
      async upload({ offer, read }: FileSource) {
        received.push(await read(0, offer.sizeBytes))
        return answer
      },
    },
    interlock: serviceInterlock(),
    ownFolders: [join(base, 'agent')],
    isOpen: () => true,
    clock: Date.now,
    ...rest,
  })
}

const request = (path: string, bytesMax = 1024 ** 3) => ({
  commandId: randomBytes(16).toString('hex'),
  target: { kind: 'evidenceFile', path, pathBytes: null } as EvidenceFileTarget,
  args: { bytesMax },
})

async function life(action: ReturnType<typeof collect>, asked: ReturnType<typeof request>) {
  const check = await action.check(asked, never())
  if (check.kind === 'refused') return check
  const applied = check.kind === 'already' ? check : await action.apply(asked, never())
  if (applied.kind !== 'applied' && applied.kind !== 'already') return applied
  return await action.probe(asked, applied.proof, never())
}

test.each([0, 1, 40 * 1024 ** 2])(
  'a file of %i bytes is copied, offered and proved, and stays as it is',
  async (size) => {
    const path = join(folder, 'f')
    const content = randomBytes(size)
    writeFileSync(path, content)
    const before = lstatSync(path, { bigint: true })
    const asked = request(path)
    expect(await life(collect(), asked)).toMatchObject({
      kind: 'proved',
      proof: { bytes: size, contentHash: sha256Of(content), changedWhileRead: false },
    })
    expect(received[0]?.equals(content)).toBe(true)
    const after = lstatSync(path, { bigint: true })
    expect([after.atimeNs, after.mtimeNs, after.ctimeNs]).toEqual([
      before.atimeNs,
      before.mtimeNs,
      before.ctimeNs,
    ])
    // What was fetched waits no longer; the offer stays until the command has ended.
    expect(readdirSync(join(base, 'collected'))).toEqual([`${asked.commandId}.json`])
    expect(lstatSync(join(base, 'collected')).mode & 0o777).toBe(0o700)
  },
)

test('a name that is not UTF-8 is collected by its bytes', async () => {
  const bytes = Buffer.concat([Buffer.from(`${folder}/`), Buffer.from([0x66, 0xff, 0x0a])])
  writeFileSync(bytes, 'content')
  const asked = request(bytes.toString('utf8'))
  const target = { ...asked.target, pathBytes: bytes.toString('base64') }
  expect(await life(collect(), { ...asked, target })).toMatchObject({ kind: 'proved' })
  expect(received[0]?.toString()).toBe('content')
  const hidden = { ...target, path: join(folder, 'harmless') }
  expect(
    await collect().check({ ...asked, commandId: 'f'.repeat(32), target: hidden }, never()),
  ).toMatchObject({
    code: 'badPath',
  })
})

test('a file that grows while it is read comes to an end, and is told as changed', async () => {
  const path = join(folder, 'growing.log')
  writeFileSync(path, Buffer.alloc(2 * 1024 ** 2, 1))
  const asked = request(path)
  const action = collect({ copied: () => appendFileSync(path, Buffer.alloc(1024 ** 2, 2)) })
  expect(await life(action, asked)).toMatchObject({
    kind: 'proved',
    proof: { bytes: 2 * 1024 ** 2, changedWhileRead: true },
  })
  expect(received[0]?.length).toBe(2 * 1024 ** 2)
})

test('a file that shrinks while it is read is told as changed', async () => {
  const path = join(folder, 'shrinking')
  writeFileSync(path, Buffer.alloc(1024 ** 2, 1))
  const action = collect({ copied: () => writeFileSync(path, 'short') })
  const result = await life(action, request(path))
  expect(result).toMatchObject({ kind: 'proved', proof: { changedWhileRead: true } })
})

test('what is over a bound is refused with the number or the setting that says so', async () => {
  const path = join(folder, 'f')
  writeFileSync(path, Buffer.alloc(2_000))
  const check = (options: Parameters<typeof collect>[0], bytesMax?: number) =>
    collect(options).check(request(path, bytesMax), never())
  expect(await check({}, 1_999)).toMatchObject({ code: 'tooLarge', reason: /1999/ })
  expect(await check({}, 2_000)).toEqual({ kind: 'ready' })
  expect(await check({ bytesMax: 1_000 })).toMatchObject({ code: 'noRoom', reason: /collectBytesMax/ })
  expect(await check({ freeBytesMin: Number.MAX_SAFE_INTEGER })).toMatchObject({
    code: 'noRoom',
    reason: /make room/,
  })
})

test.each([
  ['a link', 'symlink', (path: string) => symlinkSync('/etc/hostname', path)],
  ['a directory', 'notRegular', (path: string) => mkdirSync(path)],
  ['a FIFO', 'notRegular', (path: string) => execFileSync('mkfifo', [path])],
  ['nothing', 'notFound', () => undefined],
])('%s is refused without being opened', async (_what, code, make) => {
  const path = join(folder, 'f')
  make(path)
  expect(await life(collect(), request(path))).toMatchObject({ kind: 'refused', code })
})

test.skipIf(!root)('a device is refused without being opened', async () => {
  execFileSync('mknod', [join(folder, 'device'), 'c', '1', '5'])
  expect(await life(collect(), request(join(folder, 'device')))).toMatchObject({ code: 'notRegular' })
})

test.each([
  ['/proc/version', 'denied'],
  [`/proc/${process.pid}/environ`, 'denied'],
  ['/proc/self/environ', 'symlink'],
  ['/sys/kernel/mm/transparent_hugepage/enabled', 'denied'],
  ['/dev/zero', 'denied'],
])('%s is the kernel’s: refused', async (path, code) => {
  expect(await life(collect(), request(path))).toMatchObject({ kind: 'refused', code })
})

test('the agent’s own folders and what lies outside the test root are refused, and so is a way through a link', async () => {
  mkdirSync(join(base, 'agent'))
  writeFileSync(join(base, 'agent', 'key.pem'), 'secret')
  writeFileSync(join(folder, 'f'), 'content')
  symlinkSync(folder, join(base, 'way'))
  const check = (path: string, options = {}) => collect(options).check(request(path), never())
  expect(await check(join(base, 'agent/key.pem'))).toMatchObject({ code: 'denied', reason: /agent's own/ })
  expect(await check(join(base, 'way/f'))).toMatchObject({ code: 'symlink', reason: /name the file/ })
  await collect().apply(request(join(folder, 'f')), never())
  const [copy = ''] = readdirSync(join(base, 'collected'))
  expect(await check(join(base, 'collected', copy))).toMatchObject({ code: 'denied' })
  const rooted = createInterlock({
    installedAsService: false,
    testRoot: join(base, 'agent'),
    testCgroup: null,
    recordedNetworkNamespace: null,
  })
  expect(await check(join(folder, 'f'), { interlock: rooted })).toMatchObject({
    code: 'denied',
    reason: /testRoot/,
  })
})

test('a copy outlives the agent, and what was half copied does not', async () => {
  const path = join(folder, 'f')
  writeFileSync(path, 'content')
  const asked = request(path)
  await collect().apply(asked, never())
  rmSync(path)
  const later = collect()
  expect(await later.check(asked, never())).toMatchObject({ kind: 'already' })
  expect(await later.probe(asked, null, never())).toMatchObject({ kind: 'proved' })
  expect(received[0]?.toString()).toBe('content')
  const half = request(path)
  writeFileSync(join(base, 'collected', `${half.commandId}.content`), 'con')
  expect(await collect().probe(half, null, never())).toMatchObject({ kind: 'unknown' })
  collect({ isOpen: (id) => id === asked.commandId })
  expect(readdirSync(join(base, 'collected'))).toEqual([`${asked.commandId}.json`])
})

test('a controller that refuses ends it, and the copy is removed', async () => {
  writeFileSync(join(folder, 'f'), 'content')
  answer = { kind: 'refused', code: 'noRoom', reason: 'the disk is full' }
  const result = await life(collect(), request(join(folder, 'f')))
  expect(result).toMatchObject({ kind: 'disproved', reason: /disk is full/, proof: { code: 'noRoom' } })
  expect(readdirSync(join(base, 'collected'))).toEqual([])
})

test.skipIf(!root)('when the disk of the copies runs full nothing half stays', async () => {
  const mount = join(base, 'tiny')
  mkdirSync(mount)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'cordon-test', mount])
  try {
    writeFileSync(join(folder, 'f'), randomBytes(800_000))
    const spool = createSpool({ folder: join(mount, 'collected'), bytesMax: 1e9, freeBytesMin: 0 })
    const copied = () => {
      if (!existsSync(join(mount, 'filler'))) writeFileSync(join(mount, 'filler'), Buffer.alloc(500_000))
    }
    const failed = await collect({ spool, copied }).apply(request(join(folder, 'f')), never())
    expect(failed).toMatchObject({ kind: 'failed', reason: /ENOSPC/ })
    expect(readdirSync(join(mount, 'collected'))).toEqual([])
    expect(readFileSync(join(folder, 'f')).length).toBe(800_000)
  } finally {
    execFileSync('umount', [mount])
  }
})
