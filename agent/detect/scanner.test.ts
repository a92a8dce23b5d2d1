import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { FileIdentity, KernelText } from '../sensors/records.ts'
import type { ScanTarget } from './open-target.ts'
import type { ScanOutcome } from './scan-outcome.ts'
import { eicar } from './testing/eicar.ts'
import { content } from './testing/made-content.ts'
import { nativeAddon, type RunningScanner, runScanner } from './testing/running-scanner.ts'
import { TLSH_BYTES_MAX } from './tlsh.ts'

const isRoot = process.getuid?.() === 0
let folder: string
let shared: RunningScanner
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-scan-'))
  mkdirSync(join(folder, 'own'))
  shared = runScanner({ ownFolders: [join(folder, 'own')] })
})
afterAll(async () => {
  await shared.stop()
  rmSync(folder, { recursive: true, force: true })
})

const target = (path: KernelText, rest: Partial<ScanTarget> = {}): ScanTarget => ({
  path,
  identity: null,
  why: 'written',
  pid: null,
  ...rest,
})
function file(name: string, data: string | Buffer): string {
  const path = join(folder, name)
  writeFileSync(path, data)
  return path
}
function identityOf(path: string): FileIdentity {
  const stats = statSync(path, { bigint: true })
  return {
    device: Number(stats.dev),
    inode: Number(stats.ino),
    sizeBytes: Number(stats.size),
    changedNs: stats.ctimeNs,
  }
}
const examine = (path: KernelText, rest?: Partial<ScanTarget>) => shared.scanner.examine(target(path, rest))
const rulesOf = (outcome: ScanOutcome) =>
  outcome.kind === 'examined' ? outcome.facts.hits.map(({ ruleId }) => ruleId) : outcome
const digest = (algorithm: string, data: Buffer) => createHash(algorithm).update(data).digest('hex')

/** Waits for what must come; the test's own time limit ends it otherwise. */
async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await sleep(10)
}

test.each([false, true])(
  'a file is hashed and the rules find it (without the native addon: %s)',
  async (withoutNative) => {
    await using running = runScanner({ withoutNative })
    const data = eicar()
    const outcome = await running.scanner.examine(target(file('plain', data)))
    expect(outcome).toMatchObject({
      kind: 'examined',
      facts: {
        hashes: { sha256: digest('sha256', data), sha1: digest('sha1', data), md5: digest('md5', data) },
        hits: [{ ruleId: 'cordon-yara-eicar', severity: 'medium', techniques: ['T1105'] }],
        scannedBytes: 68,
        scanProblem: null,
      },
    })
    expect(running.scanner.status()).toMatchObject({
      state: 'ready',
      engine: 'yara-x',
      scanned: 1,
      restarts: 0,
    })
    expect(running.scanner.status().isolation[0]?.startsWith('none')).toBe(withoutNative || !nativeAddon.ok)
  },
)

test('all facts of a content come out of one reading', async () => {
  const data = content('noise', 5_000)
  const outcome = await examine(file('facts', data))
  expect(outcome).toMatchObject({
    facts: {
      hashes: { sha256: digest('sha256', data), sha1: digest('sha1', data), md5: digest('md5', data) },
      tlsh: 'T1D8A17D935665A8317300DAC3AF5A8C3AA1614E8455EBDDB3A0373D24B310B950DC9A97',
      header: data.toString('hex', 0, 32),
      mimeType: 'application/octet-stream',
    },
    identity: { sizeBytes: 5_000 },
  })
  expect(outcome.kind === 'examined' && outcome.facts.entropy).toBeCloseTo(7.96, 1)
})

test('facts are those of the whole content, also where the rules see only its head', async () => {
  await using running = runScanner({ limits: { scanBytesMax: 1_000 } })
  for (const [name, length] of [
    ['parts', 3_000_000],
    ['too-long', TLSH_BYTES_MAX + 1],
  ] as const) {
    const data = content('text', length)
    const path = file(name, data)
    const [parts, whole] = [await running.scanner.examine(target(path)), await examine(path)]
    if (parts.kind !== 'examined' || whole.kind !== 'examined') throw new Error('not examined')
    expect(parts.facts).toEqual({ ...whole.facts, scannedBytes: 1_000 })
    expect(whole.facts.tlsh === null).toBe(length > TLSH_BYTES_MAX)
    expect(whole.facts.mimeType).toBe('text/plain')
    rmSync(path)
  }
})

test('a file of no bytes is examined', async () => {
  const outcome = await examine(file('empty', ''))
  expect(outcome).toMatchObject({
    facts: {
      hashes: { sha256: digest('sha256', Buffer.alloc(0)) },
      tlsh: null,
      entropy: 0,
      header: '',
      mimeType: 'inode/x-empty',
      hits: [],
    },
  })
})

test('a name that is not UTF-8 is found as it is', async () => {
  const path = Buffer.concat([Buffer.from(`${folder}/`), Buffer.from([0xff, 0xfe, 0x0a, 0x22])])
  writeFileSync(path, eicar())
  expect(rulesOf(await examine(path))).toEqual(['cordon-yara-eicar'])
})

test('what is no plain file is skipped at once, and by its reason', async () => {
  const fifo = join(folder, 'fifo')
  execFileSync('mkfifo', [fifo])
  symlinkSync(file('linked', eicar()), join(folder, 'link'))
  mkdirSync(join(folder, 'sub'))
  const skipped = async (path: string) => {
    const outcome = await examine(path)
    return outcome.kind === 'skipped' ? outcome.reason : outcome.kind
  }
  expect(await skipped(fifo)).toBe('not-regular')
  expect(await skipped('/dev/null')).toBe('not-regular')
  expect(await skipped(join(folder, 'sub'))).toBe('not-regular')
  expect(await skipped(join(folder, 'link'))).toBe('symlink')
  expect(await skipped(join(folder, 'gone'))).toBe('vanished')
  expect(await skipped(join(folder, 'linked/below'))).toBe('vanished')
  expect(await skipped(`/${'x'.repeat(5_000)}`)).toBe('unreadable')
  const { 'not-regular': notRegular, symlink, vanished } = shared.scanner.status().skipped
  expect([notRegular, symlink, vanished]).toEqual([3, 1, 2])
})

test('a file that may not be read is skipped for that reason', async () => {
  const path = file('forbidden', 'x')
  chmodSync(path, 0o000)
  if (isRoot) process.seteuid?.(65_534)
  try {
    expect(await examine(path)).toMatchObject({ kind: 'skipped', reason: 'permission' })
  } finally {
    if (isRoot) process.seteuid?.(0)
  }
})

test.skipIf(!isRoot)('root reads what nobody else may, and the access time stays', async () => {
  const path = file('secret', eicar())
  chmodSync(path, 0o000)
  utimesSync(path, 1_000, 2_000)
  expect(rulesOf(await examine(path))).toEqual(['cordon-yara-eicar'])
  expect(statSync(path).atimeMs).toBe(1_000_000)
})

test("the agent's own state is not read, by whatever name", async () => {
  const own = file('own/state.db', eicar())
  linkSync(own, join(folder, 'other-name'))
  symlinkSync(join(folder, 'own'), join(folder, 'way-in'))
  for (const path of [own, join(folder, 'other-name'), join(folder, 'way-in/state.db')]) {
    expect(await examine(path)).toMatchObject({ kind: 'skipped', reason: 'own-file' })
  }
})

test('of a large file the rules see the head, and the hash is of all of it', async () => {
  const data = Buffer.alloc(70 * 1024 ** 2, 'abcdefg')
  const outcome = await examine(file('large', data))
  expect(outcome).toMatchObject({
    kind: 'examined',
    facts: {
      hashes: { sha256: digest('sha256', data), md5: digest('md5', data) },
      scannedBytes: 64 * 1024 ** 2,
    },
    identity: { sizeBytes: data.length },
  })
  rmSync(join(folder, 'large'))
})

test('a file beyond the bound for hashing is scanned and not hashed', async () => {
  await using running = runScanner({ limits: { scanBytesMax: 1_000, hashBytesMax: 2_000 } })
  const outcome = await running.scanner.examine(target(file('beyond', Buffer.alloc(2_001))))
  expect(outcome).toMatchObject({
    kind: 'examined',
    facts: { hashes: null, tlsh: null, entropy: null, header: '00'.repeat(32), scannedBytes: 1_000 },
  })
})

test('a result is known by the identity of the file until the file changes', async () => {
  const path = file('known', 'first')
  const identity = identityOf(path)
  expect(shared.scanner.knownHash(identity)).toBeUndefined()
  await examine(path)
  expect(shared.scanner.knownHash(identity)).toBe(digest('sha256', Buffer.from('first')))
  const before = shared.scanner.status()
  let isAtOnce = false
  shared.scanner.submit(target(path, { identity }), () => {
    isAtOnce = true
  })
  expect(isAtOnce).toBe(true)
  expect(shared.scanner.status()).toMatchObject({ scanned: before.scanned, cached: before.cached + 1 })
  writeFileSync(path, 'other')
  expect(shared.scanner.knownHash(identityOf(path))).toBeUndefined()
  const outcome = await examine(path)
  expect(outcome).toMatchObject({ facts: { hashes: { sha256: digest('sha256', Buffer.from('other')) } } })
})

test('files of equal content share one result', async () => {
  const one = await examine(file('same-1', 'same content'))
  const two = await examine(file('same-2', 'same content'))
  expect(one.kind === 'examined' && two.kind === 'examined' && one.facts === two.facts).toBe(true)
})

test('a file that grows while it is read ends, and is not taken for known', async () => {
  const path = file('growing', Buffer.alloc(8 * 1024 ** 2))
  const fd = openSync(path, 'a')
  let isGrowing = true
  const growing = (async () => {
    while (isGrowing) {
      writeSync(fd, Buffer.alloc(64 * 1024))
      await sleep(0)
    }
    closeSync(fd)
  })()
  const outcome = await examine(path)
  isGrowing = false
  await growing
  expect(outcome.kind).toBe('examined')
  expect(shared.scanner.knownHash(identityOf(path))).toBeUndefined()
})

test('a file that was replaced since the kernel told of it is not taken for it', async () => {
  const path = file('replaced', 'first')
  const identity = identityOf(path)
  writeFileSync(join(folder, 'second'), eicar())
  execFileSync('mv', [join(folder, 'second'), path])
  expect(await examine(path, { identity })).toMatchObject({ kind: 'skipped', reason: 'replaced' })
})

test('the image of a program that deleted itself is read through its process', async () => {
  const path = join(folder, 'sleeper')
  writeFileSync(path, readFileSync('/bin/sleep'), { mode: 0o755 })
  const identity = identityOf(path)
  const child = spawn(path, ['60'], { stdio: 'ignore' })
  try {
    const pid = child.pid ?? 0
    await until(
      () =>
        readdirSync(`/proc/${pid}`).length > 0 && readFileSync(`/proc/${pid}/comm`, 'utf8') === 'sleeper\n',
    )
    unlinkSync(path)
    // Removing the name changed the inode's change time.
    const outcome = await examine(path, { identity, why: 'executed', pid })
    expect(outcome).toMatchObject({
      kind: 'examined',
      facts: { hashes: { sha256: digest('sha256', readFileSync('/bin/sleep')) } },
    })
  } finally {
    child.kill('SIGKILL')
  }
})

test('many waiting for one content are told by one reading', async () => {
  const path = file('popular', eicar())
  const identity = identityOf(path)
  const before = shared.scanner.status().scanned
  const outcomes = await Promise.all(Array.from({ length: 50 }, () => examine(path, { identity })))
  expect(outcomes.every((outcome) => outcome.kind === 'examined')).toBe(true)
  expect(shared.scanner.status().scanned - before).toBeLessThanOrEqual(2)
})

test('when more comes than can wait, the oldest is dropped and counted, and what was asked comes last', async () => {
  await using running = runScanner({ limits: { queueMax: 10 } })
  const order: string[] = []
  const submit = (name: string, why: ScanTarget['why']) =>
    running.scanner.submit(target(file(name, name), { why }), (outcome) =>
      order.push(outcome.kind === 'skipped' ? `${outcome.reason} ${name}` : name),
    )
  submit('asked', 'asked')
  for (let index = 0; index < 14; index += 1) submit(`q${index}`, 'written')
  await until(() => order.length === 15)
  expect(order.slice(0, 4)).toEqual(['queue-full q0', 'queue-full q1', 'queue-full q2', 'queue-full q3'])
  expect(order.slice(4)).toEqual([...Array.from({ length: 10 }, (_, index) => `q${index + 4}`), 'asked'])
  expect(running.scanner.status().skipped['queue-full']).toBe(4)
})

const slowRule = {
  name: 'slow.yar',
  // 'slow' makes the condition run for about ever; nothing else does.
  text: `rule slow { strings: $a = "slow" condition: $a at 0 and
    for all i in (0..0x7fffffffffff) : (uint8(i % 4) != 0x99) }`,
}

test('a file that takes too long ends the child, is skipped and said, and the next is examined', async () => {
  await using running = runScanner({ sources: [slowRule], limits: { fileTimeoutMs: 400 } })
  const [slow, next] = await Promise.all([
    running.scanner.examine(target(file('slow', 'slow'))),
    running.scanner.examine(target(file('next', 'next'))),
  ])
  expect(slow).toMatchObject({ kind: 'skipped', reason: 'timeout' })
  expect(next).toMatchObject({ kind: 'examined' })
  expect(running.scanner.status()).toMatchObject({ restarts: 1, skipped: { timeout: 1 } })
  expect(running.pids).toHaveLength(2)
})

test('the engine gives up by itself where it can, which keeps the child', async () => {
  await using running = runScanner({ sources: [slowRule], limits: { fileTimeoutMs: 3_000 } })
  const outcome = await running.scanner.examine(target(file('slow-2', 'slow2')))
  expect(outcome).toMatchObject({ kind: 'examined', facts: { scanProblem: 'timeout' } })
  expect(running.scanner.knownHash(identityOf(join(folder, 'slow-2')))).toBeUndefined()
  expect(running.scanner.status().restarts).toBe(0)
})

test('a child that is killed from outside comes back, and its file and those waiting are examined', async () => {
  await using running = runScanner({ sources: [slowRule], limits: { fileTimeoutMs: 4_000 } })
  await until(() => running.scanner.status().state === 'ready')
  const slow = running.scanner.examine(target(file('slow-3', 'slow3')))
  const rest = Array.from({ length: 5 }, (_, index) =>
    running.scanner.examine(target(file(`w${index}`, `w${index}`))),
  )
  await until(() => running.scanner.status().queued === 5)
  await sleep(50)
  process.kill(running.pids[0] ?? 0, 'SIGKILL')
  expect(await slow).toMatchObject({ kind: 'examined', facts: { scanProblem: 'timeout' } })
  for (const outcome of await Promise.all(rest)) expect(outcome.kind).toBe('examined')
  expect(running.scanner.status()).toMatchObject({ restarts: 1, skipped: { crashed: 0 } })
})

test('a child without work is ended, and the next file starts another', async () => {
  await using running = runScanner({ limits: { idleMs: 200 } })
  await until(() => running.scanner.status().state === 'resting')
  expect(running.scanner.status()).toMatchObject({ pid: null, engine: 'yara-x', restarts: 0 })
  const [first = 0] = running.pids
  expect(() => process.kill(first, 0)).toThrow('ESRCH')
  const outcomes = await Promise.all(
    ['rested-1', 'rested-2'].map((name) => running.scanner.examine(target(file(name, name)))),
  )
  expect(outcomes.map(({ kind }) => kind)).toEqual(['examined', 'examined'])
  expect(running.pids).toHaveLength(2)
  await until(() => running.scanner.status().state === 'resting')
  expect(running.scanner.status()).toMatchObject({ scanned: 2, restarts: 0 })
})

test('a scanner that rests stops at once', async () => {
  const running = runScanner({ limits: { idleMs: 1 } })
  await until(() => running.scanner.status().state === 'resting')
  await running.stop()
  expect(running.scanner.status().state).toBe('stopped')
  expect(running.pids).toHaveLength(1)
})

test('a file that ends the child each time is given up after the second', async () => {
  await using running = runScanner({ sources: [slowRule], limits: { fileTimeoutMs: 60_000 } })
  const slow = running.scanner.examine(target(file('slow-4', 'slow4')))
  for (const count of [1, 2]) {
    await until(() => running.pids.length === count && running.scanner.status().state === 'ready')
    await until(() => running.scanner.status().queued === 0)
    await sleep(50)
    process.kill(running.pids.at(-1) ?? 0, 'SIGKILL')
  }
  expect(await slow).toMatchObject({ kind: 'skipped', reason: 'crashed' })
  expect(await running.scanner.examine(target(file('after', 'after')))).toMatchObject({ kind: 'examined' })
})

test('a child that takes too much memory is ended, and the file skipped for it', async () => {
  await using running = runScanner({
    sources: [slowRule],
    limits: { residentBytesMax: 100 * 1024 ** 2, fileTimeoutMs: 60_000 },
  })
  await until(() => running.scanner.status().state === 'ready')
  const head = Buffer.from('slow')
  const outcome = await running.scanner.examine(
    target(file('fat', Buffer.concat([head, Buffer.alloc(63 * 1024 ** 2)]))),
  )
  expect(outcome).toMatchObject({ kind: 'skipped' })
  expect(outcome.kind === 'skipped' && ['memory', 'crashed', 'unreadable'].includes(outcome.reason)).toBe(
    true,
  )
  expect(await running.scanner.examine(target(file('thin', 'thin')))).toMatchObject({ kind: 'examined' })
  rmSync(join(folder, 'fat'))
})

test.each([
  ['a program that answers nonsense', 'process.stdout.write("nonsense, and more of it")'],
  ['one that answers too much', 'process.stdout.write(Buffer.from([0x7f, 0xff, 0xff, 0xff]))'],
  ['one that ends at once', 'process.exitCode = 3'],
  [
    'one that answers what was not asked',
    `const body = '{"kind":"unreadable","id":7,"code":"X"}'
     process.stdout.write(Buffer.concat([Buffer.from([0, 0, 0, body.length]), Buffer.from(body)]))
     process.stdin.resume()`,
  ],
])('%s in the place of the child is ended and started again, without end', async (_, source) => {
  await using running = runScanner({ args: ['-e', source], withoutNative: true })
  const outcome = running.scanner.examine(target(file('waits', 'waits')))
  await until(() => running.scanner.status().restarts >= 2)
  await running.stop()
  expect(await outcome).toMatchObject({ kind: 'skipped', reason: 'stopped' })
  for (const pid of running.pids) expect(() => process.kill(pid, 0)).toThrow()
})

test('a child that never becomes ready is ended', async () => {
  await using running = runScanner({
    args: ['-e', 'process.stdin.resume(); setTimeout(() => undefined, 1e6)'],
    withoutNative: true,
    limits: { startTimeoutMs: 200 },
  })
  await until(() => running.scanner.status().restarts >= 1)
  expect(running.pids.length).toBeGreaterThanOrEqual(1)
})

test('stopping ends the child and answers for all that waits', async () => {
  const running = runScanner()
  const waiting = Array.from({ length: 20 }, (_, index) =>
    running.scanner.examine(target(file(`s${index}`, 'x'))),
  )
  await running.stop()
  for (const outcome of await Promise.all(waiting)) {
    expect(outcome.kind === 'examined' || outcome.reason === 'stopped').toBe(true)
  }
  for (const pid of running.pids) expect(() => process.kill(pid, 0)).toThrow()
  expect(await running.scanner.examine(target(join(folder, 's0')))).toMatchObject({
    kind: 'skipped',
    reason: 'stopped',
  })
})

test('no descriptor is left open, here or in the child', async () => {
  const count = (pid: number | string) => readdirSync(`/proc/${pid}/fd`).length
  const pid = shared.pids.at(-1) ?? 0
  await examine(file('d', 'd'))
  const own = count('self')
  const canLook = isRoot
  const before = canLook ? count(pid) : 0
  for (let index = 0; index < 200; index += 1) await examine(file(`d${index}`, `d${index}`))
  for (let index = 0; index < 50; index += 1) await examine(join(folder, `missing${index}`))
  expect(count('self')).toBeLessThanOrEqual(own + 2)
  if (canLook) expect(count(pid)).toBeLessThanOrEqual(before + 1)
})

test.skipIf(!isRoot || !nativeAddon.ok)(
  'the child of root is nobody, and inherits nothing but its pipes',
  async () => {
    await examine(file('whoami', 'x'))
    const status = readFileSync(`/proc/${shared.pids.at(-1)}/status`, 'utf8')
    expect(status).toMatch(/^Uid:\s+65534\s+65534\s+65534\s+65534$/m)
    expect(status).toMatch(/^Gid:\s+65534\s+65534\s+65534\s+65534$/m)
    expect(status).toMatch(/^Groups:\s*$/m)
    expect(status).toMatch(/^NoNewPrivs:\s+1$/m)
    expect(status).toMatch(/^Seccomp:\s+2$/m)
    expect(status).toMatch(/^CapEff:\s+0+$/m)
    const environment = readFileSync(`/proc/${shared.pids.at(-1)}/environ`, 'utf8')
    expect(
      environment
        .split('\0')
        .filter((line) => line !== '')
        .map((line) => line.split('=')[0])
        .sort(),
    ).toEqual(['LANG', 'MALLOC_ARENA_MAX', 'UV_THREADPOOL_SIZE'])
  },
)

test('what exceeds the budget waits, is not dropped, and is examined when there is some again', async () => {
  // A minute's worth is 1,200 ms of CPU; each of these takes about a second.
  let aheadMs = 0
  await using running = runScanner({
    sources: [slowRule],
    limits: { cpuShare: 0.02, fileTimeoutMs: 3_000 },
    clock: () => Date.now() + aheadMs,
  })
  const order: string[] = []
  const submit = (name: string, why: ScanTarget['why']) =>
    running.scanner.submit(target(file(name, name), { why }), (outcome) => order.push(outcome.kind))
  for (let index = 0; index < 4; index += 1) submit(`slow-budget-${index}`, 'executed')
  await until(() => running.scanner.status().budget.usedLastMinuteMs > 1_500)
  const done = [...order]
  submit('budget-written', 'written')
  submit('budget-program', 'executed')
  await sleep(300)
  const { budget, queued, skipped, state } = running.scanner.status()
  expect(order).toEqual(done)
  expect(new Set(done)).toEqual(new Set(['examined']))
  expect([queued, skipped['queue-full'], state]).toEqual([6 - done.length, 0, 'ready'])
  expect(budget.share).toBe(0.02)
  expect(budget.oldestWaitMs).toBeGreaterThanOrEqual(300)
  // Time alone brings the budget back. What comes wakes the scanner, which would else wait for the time it was told.
  while (order.length < 7) {
    aheadMs += 60_000
    if (aheadMs === 60_000) submit('budget-last', 'written')
    else running.scanner.submit(target(join(folder, `budget-gone-${aheadMs}`)), () => undefined)
    await sleep(100)
  }
  expect(new Set(order)).toEqual(new Set(['examined']))
  expect(running.scanner.status().skipped['queue-full']).toBe(0)
}, 60_000)
