import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createSilentLogger } from '../../shared/node/logger.ts'
import { openBuffer } from './buffer.ts'
import { verifyBuffer } from './verify.ts'

let folder: string
let path: string
let child: ChildProcess | undefined

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-buffer-crash-'))
  path = join(folder, 'buffer.db')
})
afterEach(() => {
  child?.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})

const options = () => ({
  path,
  bytesMax: 32 * 1024 ** 2,
  reservedBytes: 1024 ** 2,
  logger: createSilentLogger(),
})

/** Adds events until it is killed; says after each commit how many of class 0 and 2 are on disk. */
const program = `
  import { openBuffer } from '${new URL('./buffer.ts', import.meta.url).href}'
  import { createSilentLogger } from '${new URL('../../shared/node/logger.ts', import.meta.url).href}'
  import { execEvent, stoppedEvent } from '${new URL('./testing/sample-events.ts', import.meta.url).href}'
  import { writeSync } from 'node:fs'
  const buffer = openBuffer({
    path: process.argv[1], bytesMax: 32 * 1024 ** 2, reservedBytes: 1024 ** 2, groupMs: 20,
    logger: createSilentLogger(),
  })
  buffer.onRows(() => {
    const marks = buffer.watermarks()
    writeSync(1, marks[0].last + ' ' + marks[2].last + '\\n')
  })
  let index = 0
  setInterval(() => {
    for (let added = 0; added < 40; added += 1) buffer.add(execEvent(index++))
    if (index % 400 === 0) buffer.add(stoppedEvent(index))
  }, 2)
`

test('after kill -9 every committed row is there, without holes, and a gap tells the blind time', async () => {
  let committed = [0, 0]
  for (let round = 0; round < 4; round += 1) {
    child = spawn(process.execPath, ['--input-type=module', '--eval', program, path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    if (!child.stdout) throw new Error('no output')
    let commits = 0
    for await (const line of createInterface({ input: child.stdout })) {
      committed = line.split(' ').map(Number)
      commits += 1
      if (commits === 20 + round * 7) child.kill('SIGKILL')
    }
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    expect(child.signalCode).toBe('SIGKILL')
    const killedMs = Date.now()

    const verdict = verifyBuffer(path)
    expect(verdict).toMatchObject({ kind: 'whole', absentRows: 0 })

    const buffer = openBuffer(options())
    buffer.sees()
    const marks = buffer.watermarks()
    buffer.close()
    expect(marks[2]?.last).toBeGreaterThanOrEqual(committed[1] ?? 0)
    expect(marks[0]?.last).toBeGreaterThanOrEqual((committed[0] ?? 0) + 3)

    const db = new Database(path, { readonly: true })
    const count = db.prepare('SELECT count(*) FROM class_2').pluck().get()
    const gaps = db
      .prepare<[], string>(`SELECT body FROM class_0 ORDER BY sequence DESC LIMIT 3`)
      .pluck()
      .all()
      .map((body) => JSON.parse(body) as Record<string, unknown>)
    db.close()
    expect(count).toBe(marks[2]?.last)
    expect(gaps.map((gap) => gap['cordon.gap.class'])).toEqual([3, 2, 1])
    for (const gap of gaps) {
      expect(gap).toMatchObject({ 'event.action': 'gap', 'cordon.gap.count': null })
      const started = Date.parse(String(gap['cordon.gap.started']))
      const ended = Date.parse(String(gap['cordon.gap.ended']))
      expect(ended).toBeGreaterThanOrEqual(started)
      // The kill lies inside the window, and the window reaches little further.
      expect(started).toBeLessThanOrEqual(killedMs)
      expect(killedMs - started).toBeLessThan(3_000)
    }
  }
})

test('an idle agent that is killed was blind only since it was last alive', async () => {
  const idle = `
    import { openBuffer } from '${new URL('./buffer.ts', import.meta.url).href}'
    import { createSilentLogger } from '${new URL('../../shared/node/logger.ts', import.meta.url).href}'
    const buffer = openBuffer({
      path: process.argv[1], bytesMax: 32 * 1024 ** 2, reservedBytes: 1024 ** 2, logger: createSilentLogger(),
    })
    console.log(buffer.streamId)
    setInterval(() => undefined, 1_000)
  `
  child = spawn(process.execPath, ['--input-type=module', '--eval', idle, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  if (!child.stdout) throw new Error('no output')
  await once(child.stdout, 'data')
  const openedMs = Date.now()
  await new Promise((resolve) => setTimeout(resolve, 3_500))
  child.kill('SIGKILL')
  await once(child, 'exit')
  openBuffer(options()).close()
  const db = new Database(path, { readonly: true })
  const started = db
    .prepare(`SELECT json_extract(body, '$."cordon.gap.started"') FROM class_0 ORDER BY sequence LIMIT 1`)
    .pluck()
    .get()
  db.close()
  expect(Date.parse(String(started))).toBeGreaterThan(openedMs + 1_000)
})

test('killed again before it sees, it was blind since the first time', async () => {
  const killedAfter = (body: string) => `
    import { openBuffer } from '${new URL('./buffer.ts', import.meta.url).href}'
    import { createSilentLogger } from '${new URL('../../shared/node/logger.ts', import.meta.url).href}'
    import { stoppedEvent } from '${new URL('./testing/sample-events.ts', import.meta.url).href}'
    const buffer = openBuffer({
      path: process.argv[1], bytesMax: 32 * 1024 ** 2, reservedBytes: 1024 ** 2, logger: createSilentLogger(),
    })
    ${body}
    buffer.add(stoppedEvent(1))
    console.log(Date.now())
    setInterval(() => undefined, 1_000)
  `
  const runAndKill = async (body: string) => {
    child = spawn(process.execPath, ['--input-type=module', '--eval', killedAfter(body), path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    if (!child.stdout) throw new Error('no output')
    const [said] = (await once(child.stdout, 'data')) as [Buffer]
    child.kill('SIGKILL')
    await once(child, 'exit')
    return Number(said.toString())
  }
  const sawUntilMs = await runAndKill('buffer.sees()')
  const againMs = await runAndKill('')
  expect(againMs).toBeGreaterThan(sawUntilMs)

  openBuffer(options()).close()
  const db = new Database(path, { readonly: true })
  const gaps = db
    .prepare<[], string>(`SELECT body FROM class_0 WHERE body LIKE '%"gap"%' ORDER BY sequence`)
    .pluck()
    .all()
    .map((body) => Date.parse(JSON.parse(body)['cordon.gap.started']))
  db.close()
  expect(gaps).toHaveLength(3)
  for (const startedMs of gaps) expect(startedMs).toBeLessThanOrEqual(sawUntilMs)
})
