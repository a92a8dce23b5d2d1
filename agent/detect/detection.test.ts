import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { CordonEvent, EventOf } from '../../shared/events/event.ts'
import { loadIndicators } from '../../shared/ioc/indicator.ts'
import { compileIndicators } from '../../shared/ioc/matcher.ts'
import { readContent, shippedContentFolder } from '../../shared/node/content.ts'
import { parseEvent } from '../../shared/protocol/parse.ts'
import { createDetection, type Detection } from './detection.ts'
import { type PathMatch, type ScanPathOptions, scanPath } from './scan-path.ts'
import { eicar } from './testing/eicar.ts'
import { type RunningScanner, runScanner } from './testing/running-scanner.ts'

const agentId = '12345678'.repeat(4)
const entity = '12345678.abcdef01.4242.99'
let folder: string
let running: RunningScanner
let detection: Detection
let emitted: CordonEvent[] = []
let nowMs = 0

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-detect-'))
  running = runScanner()
})
afterAll(async () => {
  await running.stop()
  rmSync(folder, { recursive: true, force: true })
})
beforeEach(() => {
  emitted = []
  nowMs = Date.parse('2026-03-01T10:00:00.000Z')
  detection = create()
})

function create(indicators = readContent([shippedContentFolder()]).indicators): Detection {
  return createDetection({
    agentId,
    scanner: running.scanner,
    matcher: compileIndicators(indicators, nowMs),
    processContext: (id) => ({
      ancestors: id === entity ? ['12345678.abcdef01.4000.90', '12345678.abcdef01.1.1'] : [],
      sessionAncestors: 1,
      sessionLeaderEntityId: '12345678.abcdef01.4000.90',
      workingDirectory: '/tmp',
      sha256: undefined,
    }),
    emit: (event) => emitted.push(event),
    clock: () => nowMs,
  })
}

const actor = {
  'process.entity_id': entity,
  'process.pid': 4242,
  'process.name': 'sh',
  'process.executable': '/bin/sh',
  'process.command_line': 'sh -c drop',
  'process.parent.pid': 4000,
  'process.parent.executable': '/bin/bash',
  'user.id': '0',
}

function modified(path: string, rest: Partial<EventOf<'file-modified'>> = {}): EventOf<'file-modified'> {
  return {
    '@timestamp': new Date(nowMs).toISOString(),
    'event.kind': 'event',
    'event.category': 'file',
    'event.type': 'change',
    'event.action': 'file-modified',
    'file.path': path,
    ...actor,
    ...rest,
  }
}

function exec(path: string, rest: Partial<EventOf<'exec'>> = {}): EventOf<'exec'> {
  return {
    '@timestamp': new Date(nowMs).toISOString(),
    'event.kind': 'event',
    'event.category': 'process',
    'event.type': 'start',
    'event.action': 'exec',
    ...actor,
    'process.executable': path,
    ...rest,
  }
}

function file(name: string, data: string | Buffer): string {
  const path = join(folder, name)
  writeFileSync(path, data)
  return path
}

/** Hands over a written file and waits until the scanner has told what it is. */
async function written(path: string, event = modified(path)): Promise<void> {
  detection.handle({ event, content: { path, identity: null, why: 'written' } })
  await settled()
}
/** The scanner works in order, so a file asked for now comes after all that waits. */
async function settled(): Promise<void> {
  const path = join(folder, `settle-${Math.random()}`)
  writeFileSync(path, path)
  await running.scanner.examine({ path, identity: null, why: 'asked', pid: null })
  await sleep(0)
}
const detections = () => emitted.filter((event) => event['event.action'] === 'detection')
const examinations = () => emitted.filter((event) => event['event.action'] === 'file-examined')

test('a written test file is told as examined, then as found, with the process that wrote it', async () => {
  const path = file('dropped.com', eicar())
  await written(path)
  const sha256 = createHash('sha256').update(eicar()).digest('hex')
  const stats = statSync(path, { bigint: true })
  const facts = {
    'file.path': path,
    'file.name': 'dropped.com',
    'file.extension': 'com',
    'file.size': 68,
    'file.inode': String(stats.ino),
    'file.device': String(stats.dev),
    'file.hash.sha256': sha256,
    'file.hash.sha1': createHash('sha1').update(eicar()).digest('hex'),
    'file.hash.md5': createHash('md5').update(eicar()).digest('hex'),
    'file.mime_type': 'text/plain',
    'cordon.file.entropy': 4.872,
    'cordon.file.header': eicar().toString('hex', 0, 32),
  }
  expect(emitted.map((event) => event['event.action'])).toEqual(['file-examined', 'detection', 'detection'])
  expect(emitted[0]).toMatchObject({ ...facts, ...actor })
  const [indicator, yara] = detections()
  expect(yara).toMatchObject({
    ...facts,
    ...actor,
    'cordon.detection.engine': 'yara',
    'rule.id': 'cordon-yara-eicar',
    'cordon.detection.severity': 'medium',
    'cordon.detection.event_action': 'file-modified',
    'cordon.detection.matched': { 'file.path': path, 'yara.strings': '$text at 0' },
    'cordon.process.ancestors': ['12345678.abcdef01.4000.90', '12345678.abcdef01.1.1'],
    'cordon.process.session_ancestors': 1,
    'process.session_leader.entity_id': '12345678.abcdef01.4000.90',
  })
  expect(indicator).toMatchObject({
    ...facts,
    'cordon.detection.engine': 'ioc',
    'rule.id': 'cordon-test-eicar-sha256',
    'threat.indicator.type': 'sha256',
    'cordon.detection.matched': { 'file.hash.sha256': sha256 },
  })
  for (const event of emitted) {
    expect(parseEvent(JSON.stringify(event))).toEqual({ ok: true, value: event })
  }
})

test('a detection is told once for each rule, content and process, and again after a while', async () => {
  const path = file('again', eicar())
  await written(path)
  const first = detections().map((event) => event['cordon.detection.id'])
  await written(path)
  expect(detections()).toHaveLength(2)
  expect(detection.status()).toEqual({ detections: 2, repeated: 2 })
  const other = '12345678.abcdef01.4243.99'
  await written(path, modified(path, { 'process.entity_id': other }))
  expect(detections()).toHaveLength(4)
  expect(examinations()).toHaveLength(1)
  nowMs += 3_600_000
  await written(path)
  expect(
    detections()
      .slice(4)
      .map((event) => event['cordon.detection.id']),
  ).toEqual(first)
})

test('after containment what is found again is told again, under the same id', async () => {
  const path = file('back', eicar())
  await written(path)
  const first = detections().map((event) => event['cordon.detection.id'])
  detection.forgetTold()
  rmSync(path)
  file('back', eicar())
  await written(path)
  expect(detections().map((event) => event['cordon.detection.id'])).toEqual([...first, ...first])
})

test('a content is told as examined once for each path, and again when it changes', async () => {
  const path = file('notes.txt', 'one')
  await written(path)
  await written(path)
  file('notes.txt', 'two')
  await written(path)
  await written(file('other.txt', 'one'))
  expect(examinations().map((event) => event['file.path'])).toEqual([path, path, join(folder, 'other.txt')])
  expect(detections()).toEqual([])
})

test('a connection to a listed address is a detection at once', () => {
  detection.handle({
    event: {
      '@timestamp': new Date(nowMs).toISOString(),
      'event.kind': 'event',
      'event.category': 'network',
      'event.type': 'start',
      'event.action': 'connection',
      'event.outcome': 'failure',
      'network.transport': 'tcp',
      'network.type': 'ipv4',
      'network.direction': 'egress',
      'source.ip': '127.0.0.1',
      'destination.ip': '127.66.66.66',
      'destination.port': 4444,
      ...actor,
    },
    content: null,
  })
  expect(emitted).toHaveLength(1)
  expect(emitted[0]).toMatchObject({
    'rule.id': 'cordon-test-address',
    'cordon.detection.matched': { 'destination.ip': '127.66.66.66' },
    'destination.port': 4444,
    'process.command_line': 'sh -c drop',
    'threat.indicator.name': '127.66.66.66',
  })
  expect(parseEvent(JSON.stringify(emitted[0])).ok).toBe(true)
})

test('a program that is run is examined, and known by its hash when it is run again', async () => {
  const path = file('tool', 'a program')
  const stats = statSync(path, { bigint: true })
  const identity = {
    device: Number(stats.dev),
    inode: Number(stats.ino),
    sizeBytes: Number(stats.size),
    changedNs: stats.ctimeNs,
  }
  const sha256 = createHash('sha256').update('a program').digest('hex')
  const { indicators } = loadIndicators(
    JSON.stringify([
      {
        id: 'tool',
        type: 'sha256',
        value: sha256,
        name: 'Tool',
        severity: 'high',
        confidence: 90,
        source: 'own',
      },
    ]),
    'test',
  )
  detection = create(indicators)
  detection.handle({ event: exec(path), content: { path, identity, why: 'executed' } })
  await settled()
  expect(detections()).toHaveLength(1)
  expect(detections()[0]).toMatchObject({
    'cordon.detection.event_action': 'exec',
    'file.path': path,
    'file.hash.sha256': sha256,
    'process.executable': path,
  })
  expect(running.scanner.knownHash(identity)).toBe(sha256)
  // Now the event itself carries the hash: one detection, by the process, not a second by the file.
  const again = exec(path, { 'process.entity_id': '12345678.abcdef01.5000.1', 'process.hash.sha256': sha256 })
  detection.handle({ event: again, content: { path, identity, why: 'executed' } })
  expect(detections()).toHaveLength(2)
  expect(detections()[1]).toMatchObject({
    'cordon.detection.matched': { 'process.hash.sha256': sha256 },
    'file.inode': String(stats.ino),
  })
})

test('a name that is not UTF-8 is told readable, and exact beside it', async () => {
  const name = Buffer.from([0x61, 0xff, 0x62])
  const path = Buffer.concat([Buffer.from(`${folder}/`), name])
  writeFileSync(path, eicar())
  const event = modified(`${folder}/a\ufffdb`, { 'cordon.bytes': { 'process.command_line': 'AAAA' } })
  detection.handle({ event, content: { path, identity: null, why: 'written' } })
  await settled()
  const found = detections()[0]
  expect(found).toMatchObject({
    'file.name': 'a\ufffdb',
    'cordon.bytes': { 'file.path': path.toString('base64') },
  })
  expect(parseEvent(JSON.stringify(found)).ok).toBe(true)
  expect(examinations()[0]?.['cordon.bytes']).toEqual({
    'process.command_line': 'AAAA',
    'file.path': path.toString('base64'),
  })
})

test('events with nothing to find and nothing to read are nothing', () => {
  detection.handle({ event: exec('/bin/true'), content: null })
  detection.handle({ event: modified('/tmp/x'), content: null })
  expect(emitted).toEqual([])
})

const scan = (path: string | Uint8Array, rest: Partial<ScanPathOptions> = {}) =>
  scanPath(path, {
    scanner: running.scanner,
    detection,
    filesMax: 1_000,
    signal: new AbortController().signal,
    ...rest,
  })

function tree(name: string): string {
  const root = join(folder, name)
  mkdirSync(join(root, 'a/b'), { recursive: true })
  writeFileSync(join(root, 'clean'), 'clean')
  writeFileSync(join(root, 'a/b/found'), eicar())
  writeFileSync(Buffer.concat([Buffer.from(`${root}/a/`), Buffer.from([0xfe])]), eicar())
  execFileSync('mkfifo', [join(root, 'a/fifo')])
  symlinkSync(root, join(root, 'a/loop'))
  symlinkSync('/etc/passwd', join(root, 'link'))
  return root
}

test('a folder is scanned without following links, and what was left out is said', async () => {
  const root = tree('tree')
  const matches: PathMatch[] = []
  const summary = await scan(root, { onMatch: (match) => matches.push(match) })
  expect(summary).toMatchObject({ files: 3, bytes: 68 * 2 + 5, matches: 4 })
  expect([...summary.skipped].sort((a, b) => a.reason.localeCompare(b.reason))).toEqual([
    { reason: 'not-regular', count: 1 },
    { reason: 'symlink', count: 2 },
  ])
  const yara = matches.filter(({ finding }) => finding.engine === 'yara')
  expect(new Set(yara.map(({ path }) => path))).toEqual(new Set([`${root}/a/\ufffd`, `${root}/a/b/found`]))
  expect(detections()).toHaveLength(4)
  expect(detections()[0]).toMatchObject({ 'cordon.detection.event_action': 'file-examined' })
  expect(detections()[0]).not.toHaveProperty('process.pid')
  for (const event of emitted) expect(parseEvent(JSON.stringify(event)).ok).toBe(true)
})

test('a scan is bounded in files and depth, ends when it is stopped, and says so', async () => {
  const root = tree('bounded')
  expect(await scan(root, { filesMax: 1 })).toMatchObject({
    files: 1,
    skipped: expect.arrayContaining([{ reason: 'too-many', count: 1 }]),
  })
  expect((await scan(root, { depthMax: 0 })).skipped).toContainEqual({ reason: 'too-deep', count: 1 })
  expect((await scan(root, { signal: AbortSignal.abort() })).skipped).toContainEqual({
    reason: 'cancelled',
    count: 1,
  })
})

test('a file, a link, a device and nothing at all may be named', async () => {
  const path = file('single', eicar())
  expect(await scan(path)).toMatchObject({ files: 1, matches: 2, skipped: [] })
  symlinkSync(path, join(folder, 'to-single'))
  expect((await scan(join(folder, 'to-single'))).skipped).toEqual([{ reason: 'symlink', count: 1 }])
  expect((await scan('/dev/null')).skipped).toEqual([{ reason: 'not-regular', count: 1 }])
  expect((await scan(join(folder, 'no-such'))).skipped).toEqual([{ reason: 'vanished', count: 1 }])
})

test('a scan stays on its device unless told otherwise', async () => {
  const { skipped } = await scan('/dev', { filesMax: 10 })
  const devices = statSync('/dev').dev !== statSync('/dev/shm').dev
  expect(skipped.some(({ reason }) => reason === 'other-device')).toBe(devices)
})
