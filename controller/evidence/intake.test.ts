import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createFileUploads, type FileUploads } from '../../agent/uplink/files.ts'
import { encodeFileChunk } from '../../shared/node/file-chunk.ts'
import { createSilentLogger } from '../../shared/node/logger.ts'
import type { FileOffer } from '../../shared/protocol/messages.ts'
import { HOST_A, HOST_B } from '../correlate/testing/findings.ts'
import { agentState } from '../dispatch/testing/domain.ts'
import type { Intake } from './intake.ts'
import { createEvidenceBench, type EvidenceBench, offerOf } from './testing/evidence-bench.ts'

const root = process.getuid?.() === 0
const MEGABYTE = 1024 ** 2
const never = () => AbortSignal.timeout(60_000)
const sha256Of = (content: Uint8Array) => createHash('sha256').update(content).digest('hex')

let bench: EvidenceBench
beforeEach(() => {
  bench = createEvidenceBench()
})
afterEach(() => bench[Symbol.asyncDispose]())

const sourceOf = (offer: FileOffer, content: Buffer) => ({
  offer,
  read: async (offset: number, bytesMax: number) => content.subarray(offset, offset + bytesMax),
})

/** Joins both ends as a connection does. Cut after so many pieces; what was on its way is lost. */
function connect(uploads: FileUploads, intake: Intake, cutAfter = Number.POSITIVE_INFINITY) {
  let pieces = 0
  let isCut = false
  const offsets: number[] = []
  const cut = () => {
    if (isCut) return
    isCut = true
    uploads.disconnected()
    intake.closed(HOST_A)
  }
  const deliver = (message: Awaited<ReturnType<Intake['offer']>>) => {
    if (isCut) return
    const wrong = message.kind === 'fileProgress' ? uploads.progress(message) : uploads.refused(message)
    expect(wrong).toBeNull()
  }
  uploads.connected({
    offer(message) {
      void intake.offer(HOST_A, message).then((answer) => {
        if (answer.kind === 'fileProgress') offsets.push(answer.offset)
        deliver(answer)
      })
    },
    write(frame, done) {
      if (isCut) return
      pieces += 1
      if (pieces > cutAfter) return cut()
      void intake.take(HOST_A, frame).then((taken) => {
        expect(taken.kind).not.toBe('malformed')
        if (taken.kind === 'answer') deliver(taken.message)
      })
      setImmediate(done)
    },
    queuedBytes: 0,
  })
  return { cut, offsets, isCut: () => isCut }
}

const stored = (content: Uint8Array) => join(bench.folder, sha256Of(content))
const newUploads = () => createFileUploads({ logger: createSilentLogger(), busyPauseMs: 10 })

test.each([0, 1, 262_143, 262_144, 262_145, 40 * MEGABYTE])(
  'a file of %i bytes arrives whole',
  async (size) => {
    const content = randomBytes(size)
    const id = bench.asked()
    const { intake, service } = bench.open()
    const uploads = newUploads()
    connect(uploads, intake)
    expect(await uploads.upload(sourceOf(offerOf(id, content), content), never())).toEqual({
      kind: 'complete',
    })
    expect(readFileSync(stored(content)).equals(content)).toBe(true)
    expect(lstatSync(stored(content)).mode & 0o777).toBe(0o600)
    expect(readdirSync(join(bench.folder, 'partial'))).toEqual([])
    expect(service.get(id)).toMatchObject({
      state: 'complete',
      receivedBytes: size,
      sha256: sha256Of(content),
    })
    expect(bench.domain.dispatch.get(id)?.progress).toEqual({ receivedBytes: size, sizeBytes: size })
    expect(bench.raised).toEqual([])
  },
)

test('after a cut it goes on from what is on disk, however often the line breaks', async () => {
  const content = randomBytes(6 * MEGABYTE + 17)
  const id = bench.asked()
  const { intake } = bench.open()
  const uploads = newUploads()
  const outcome = uploads.upload(sourceOf(offerOf(id, content), content), never())
  const resumedFrom: number[] = []
  for (const pieces of [1, 3, 5, 7]) {
    const line = connect(uploads, intake, pieces)
    await vi.waitFor(() => expect(line.isCut()).toBe(true), { timeout: 20_000 })
    resumedFrom.push(...line.offsets)
  }
  const last = connect(uploads, intake)
  expect(await outcome).toEqual({ kind: 'complete' })
  resumedFrom.push(...last.offsets)
  expect(resumedFrom.at(-1)).toBeGreaterThan(0)
  expect(resumedFrom).toEqual([...resumedFrom].sort((a, b) => a - b))
  expect(readFileSync(stored(content)).equals(content)).toBe(true)
})

test('both ends may start anew in the middle, and what a crash may have torn is sent again', async () => {
  const content = randomBytes(8 * MEGABYTE)
  const id = bench.asked()
  const first = newUploads()
  const line = connect(first, bench.open().intake, 20)
  void first.upload(sourceOf(offerOf(id, content), content), never())
  await vi.waitFor(() => expect(line.isCut()).toBe(true), { timeout: 20_000 })
  const partial = join(bench.folder, 'partial', id)
  await vi.waitFor(() => expect(lstatSync(partial).size).toBeGreaterThan(2 * MEGABYTE), { timeout: 20_000 })
  // What a power cut leaves of bytes that were never synced.
  writeFileSync(partial, Buffer.alloc(3 * 262_144), { flag: 'a' })
  const second = newUploads()
  const again = connect(second, bench.open().intake)
  expect(await second.upload(sourceOf(offerOf(id, content), content), never())).toEqual({ kind: 'complete' })
  expect(again.offsets[0]).toBeGreaterThan(0)
  expect(readFileSync(stored(content)).equals(content)).toBe(true)
})

test('a file that is whole is answered so again, also after a restart between its mark and its name', async () => {
  const content = randomBytes(1_000)
  const id = bench.asked()
  const offer = offerOf(id, content)
  const uploads = newUploads()
  connect(uploads, bench.open().intake)
  await uploads.upload(sourceOf(offer, content), never())
  expect(await bench.open().intake.offer(HOST_A, offer)).toMatchObject({ complete: true, offset: 1_000 })
  const other = randomBytes(500)
  const late = bench.asked()
  await bench.open().intake.offer(HOST_A, offerOf(late, other))
  writeFileSync(join(bench.folder, 'partial', late), other)
  bench.domain.state.evidence.completed(late, bench.domain.clock.nowMs)
  const { intake } = bench.open()
  expect(readFileSync(stored(other)).equals(other)).toBe(true)
  expect(await intake.offer(HOST_A, offerOf(late, other))).toMatchObject({ complete: true })
})

test('the same content from two commands is kept once', async () => {
  const content = randomBytes(300_000)
  const { intake } = bench.open({ bytesMax: 700_000 })
  for (const id of [bench.asked(), bench.asked()]) {
    const uploads = newUploads()
    connect(uploads, intake)
    expect(await uploads.upload(sourceOf(offerOf(id, content), content), never())).toEqual({
      kind: 'complete',
    })
  }
  expect(readdirSync(bench.folder).sort()).toEqual([sha256Of(content), 'partial'].sort())
  expect(bench.domain.state.evidence.heldBytes()).toBe(300_000)
})

const content = Buffer.from('what was offered')
const expectNothingKept = () => {
  expect(readdirSync(bench.folder)).toEqual(['partial'])
  expect(readdirSync(join(bench.folder, 'partial'))).toEqual([])
}

test.each<[string, (id: string) => [string, FileOffer], string, string | null]>([
  [
    'for a command that nobody gave',
    () => [HOST_A, offerOf('0'.repeat(32), content)],
    'unassigned',
    'unassignedUpload',
  ],
  [
    'for the command of another agent',
    (id) => [HOST_B, offerOf(id, content)],
    'unassigned',
    'unassignedUpload',
  ],
  [
    'of another path',
    (id) => [HOST_A, offerOf(id, content, { path: '/etc/shadow' })],
    'otherOffer',
    'otherFileOffered',
  ],
  [
    'of more than was asked for',
    (id) => [HOST_A, offerOf(id, content, { sizeBytes: 1_000_001 })],
    'tooLarge',
    'moreThanAsked',
  ],
  [
    'of more than the setting allows',
    (id) => [HOST_A, offerOf(id, content, { sizeBytes: 5_000 })],
    'tooLarge',
    null,
  ],
])('an offer %s is refused, and nothing is kept', async (_what, make, code, alert) => {
  const { intake } = bench.open({ fileBytesMax: 4_000 })
  const [agentId, offer] = make(bench.asked(1_000_000))
  expect(await intake.offer(agentId, offer)).toMatchObject({ kind: 'fileRefused', code })
  expect(bench.raised).toEqual(alert === null ? [] : [`${alert} ${agentId.slice(0, 4)}`])
  expectNothingKept()
  expect(bench.domain.state.evidence.list({}, 10)).toEqual([])
})

test('offers without end for nothing cost neither disk nor rows', async () => {
  const { intake } = bench.open()
  for (let count = 0; count < 2_000; count += 1) {
    const offer = offerOf(randomBytes(16).toString('hex'), content)
    expect(await intake.offer(HOST_B, offer)).toMatchObject({ code: 'unassigned' })
  }
  expectNothingKept()
  expect(bench.domain.state.evidence.list({}, 10)).toEqual([])
})

test('a second offer with another hash, and one after the command has ended, are refused', async () => {
  const { intake } = bench.open()
  const id = bench.asked()
  expect(await intake.offer(HOST_A, offerOf(id, content))).toMatchObject({ kind: 'fileProgress', offset: 0 })
  const other = Buffer.from('something else!!')
  expect(await intake.offer(HOST_A, offerOf(id, other))).toMatchObject({ code: 'otherOffer' })
  expect(bench.raised).toEqual(['otherFileOffered aaaa'])
  const ended = bench.asked()
  bench.domain.dispatch.applyAgentState(
    HOST_A,
    agentState(ended, 'failed', { 'cordon.command.action': 'collectFile' }),
    bench.domain.clock.nowMs,
  )
  expect(await intake.offer(HOST_A, offerOf(ended, content))).toMatchObject({ code: 'ended' })
})

test.each<[string, (id: string) => Promise<Buffer>, string, string]>([
  [
    'at a wrong offset',
    (id) => encodeFileChunk({ commandId: id, offset: 1 }, Buffer.from('x')),
    'wrongOffset',
    'fileOutOfOrder',
  ],
  [
    'with more bytes than were offered',
    (id) => encodeFileChunk({ commandId: id, offset: 0 }, Buffer.alloc(17)),
    'tooLarge',
    'moreThanOffered',
  ],
  ['whose bytes are not those of its hash', damagedPiece, 'hashMismatch', 'fileHashMismatch'],
  [
    'that is not what was offered',
    (id) => encodeFileChunk({ commandId: id, offset: 0 }, Buffer.from('WHAT WAS OFFERED')),
    'hashMismatch',
    'fileHashMismatch',
  ],
])('a piece %s ends the upload for good, and nothing is kept', async (_what, make, code, alert) => {
  const { intake, service } = bench.open()
  const id = bench.asked()
  const offer = offerOf(id, content)
  await intake.offer(HOST_A, offer)
  const taken = await intake.take(HOST_A, await make(id))
  expect(taken).toMatchObject({ kind: 'answer', message: { kind: 'fileRefused', code } })
  expect(bench.raised).toEqual([`${alert} aaaa`])
  expectNothingKept()
  expect(service.get(id)).toMatchObject({ state: 'failed' })
  expect(service.download(id, 0, 'ada')).toBeUndefined()
  expect(await intake.offer(HOST_A, offer)).toMatchObject({ code: 'ended' })
  // Pieces that were under way when it ended are no new offence.
  const rest = await encodeFileChunk({ commandId: id, offset: 0 }, content)
  expect(await intake.take(HOST_A, rest)).toEqual({ kind: 'nothing' })
})

async function damagedPiece(id: string): Promise<Buffer> {
  const [piece, other] = await Promise.all(
    [content, Buffer.from('what was Offered')].map((bytes) =>
      encodeFileChunk({ commandId: id, offset: 0 }, bytes),
    ),
  )
  const end = (frame: Buffer) => 2 + frame.readUInt16BE(0)
  if (!piece || !other) throw new Error('no piece')
  return Buffer.concat([piece.subarray(0, end(piece)), other.subarray(end(other))])
}

test('pieces without an offer, or of another agent’s upload, end the connection', async () => {
  const { intake } = bench.open()
  const id = bench.asked()
  const piece = await encodeFileChunk({ commandId: id, offset: 0 }, content)
  expect(await intake.take(HOST_A, piece)).toMatchObject({ kind: 'malformed' })
  await intake.offer(HOST_A, offerOf(id, content))
  expect(await intake.take(HOST_B, piece)).toMatchObject({ kind: 'malformed' })
  expect(bench.raised).toEqual(['unassignedUpload aaaa', 'unassignedUpload bbbb'])
  expect(await intake.take(HOST_A, Buffer.from('no frame'))).toMatchObject({ kind: 'malformed' })
})

test('an agent that says done and brought nothing is not believed', () => {
  const id = bench.asked()
  const told = agentState(id, 'done', { 'cordon.command.action': 'collectFile' })
  bench.domain.dispatch.applyAgentState(HOST_A, told, bench.domain.clock.nowMs)
  expect(bench.domain.dispatch.get(id)?.state).toBe('unknown')
  expect(bench.domain.alerts()).toContain('alert.doneWithoutFile')
})

test('what is over the bound for all evidence is refused with the setting to raise, and busy passes', async () => {
  const { intake } = bench.open({ bytesMax: 20, uploadsMax: 1 })
  const [first, second] = [bench.asked(), bench.asked()]
  expect(await intake.offer(HOST_A, offerOf(first, content))).toMatchObject({ kind: 'fileProgress' })
  expect(await intake.offer(HOST_A, offerOf(second, content))).toMatchObject({ code: 'busy' })
  intake.closed(HOST_A)
  expect(await intake.offer(HOST_A, offerOf(second, content))).toMatchObject({
    code: 'noRoom',
    reason: expect.stringContaining('evidenceBytesMax'),
  })
})

test('what nobody will finish is given up', async () => {
  const { intake } = bench.open()
  const [silent, failed] = [bench.asked(), bench.asked()]
  for (const id of [silent, failed]) await intake.offer(HOST_A, offerOf(id, content))
  intake.closed(HOST_A)
  bench.domain.dispatch.applyAgentState(
    HOST_A,
    agentState(failed, 'failed', { 'cordon.command.action': 'collectFile' }),
    bench.domain.clock.nowMs,
  )
  const round = async () => {
    const stop = new AbortController()
    const running = intake.run(stop.signal)
    stop.abort()
    await running
  }
  await round()
  expect(readdirSync(join(bench.folder, 'partial'))).toEqual([silent])
  bench.domain.clock.nowMs += 8 * 86_400_000
  await round()
  expectNothingKept()
})

test.skipIf(!root)(
  'a disk that is full, or runs full, gives a clear failure, and nothing half stays',
  async () => {
    const mount = join(bench.folder, 'mount')
    mkdirSync(mount)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'cordon-test', mount])
    try {
      const { intake, service } = bench.open({}, mount)
      const large = randomBytes(5 * MEGABYTE)
      expect(await intake.offer(HOST_A, offerOf(bench.asked(), large))).toMatchObject({ code: 'noRoom' })
      const id = bench.asked()
      const some = randomBytes(3 * MEGABYTE)
      const uploads = newUploads()
      connect(uploads, intake)
      const source = sourceOf(offerOf(id, some), some)
      const outcome = await uploads.upload(
        {
          ...source,
          async read(offset, bytes) {
            if (offset > MEGABYTE && !existsSync(join(mount, 'filler'))) {
              writeFileSync(join(mount, 'filler'), Buffer.alloc(2.2 * MEGABYTE))
            }
            return source.read(offset, bytes)
          },
        },
        never(),
      )
      expect(outcome).toMatchObject({
        kind: 'refused',
        code: 'noRoom',
        reason: expect.stringContaining('disk is full'),
      })
      expect(readdirSync(join(mount, 'partial'))).toEqual([])
      expect(readdirSync(mount).sort()).toEqual(['filler', 'partial'])
      expect(service.get(id)).toMatchObject({
        state: 'failed',
        reason: expect.stringContaining('disk is full'),
      })
    } finally {
      execFileSync('umount', [mount])
    }
  },
)
