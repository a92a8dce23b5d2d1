import { expect, test } from 'vitest'
import { STREAM_LIMITS } from './change-stream.ts'
import { type MemoryController, startMemoryController } from './testing/memory-controller.ts'

const quick = { ...STREAM_LIMITS, mergeMs: 10, heartbeatMs: 20 }

function open(controller: MemoryController, token: string) {
  return fetch(`${controller.url}/api/v1/stream`, {
    headers: { authorization: `Bearer ${token}` },
    signal: AbortSignal.timeout(20_000),
  })
}

/** Reads until the text matches, and gives it. */
async function readUntil(response: Response, pattern: RegExp): Promise<string> {
  let text = ''
  for await (const chunk of response.body ?? []) {
    text += Buffer.from(chunk).toString('utf8')
    if (pattern.test(text)) return text
  }
  return `${text}\n(closed)`
}

test('a change reaches who listens, and a quiet stream shows that it lives', async () => {
  await using controller = await startMemoryController({ streamLimits: quick })
  const { token } = await controller.signIn('viewer')
  const response = await open(controller, token)
  expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
  expect(response.headers.get('content-security-policy')).toContain("default-src 'none'")
  const seen = readUntil(response, /: alive[\s\S]*INC-7[\s\S]*\n\n/)
  await new Promise((resolve) => setTimeout(resolve, 60))
  controller.change({ kind: 'incident', id: 'INC-7' })
  expect(await seen).toContain('event: change\ndata: {"kind":"incident","id":"INC-7"}\n\n')
})

test('changes of one thing are merged to the last of them', async () => {
  await using controller = await startMemoryController({ streamLimits: { ...quick, mergeMs: 200 } })
  const { token } = await controller.signIn('viewer')
  const seen = readUntil(await open(controller, token), /0999/)
  await new Promise((resolve) => setTimeout(resolve, 20))
  for (let index = 0; index < 1_000; index += 1) {
    controller.change({ kind: 'events', cursor: String(index).padStart(4, '0') })
  }
  expect((await seen).match(/event: change/g)?.length).toBeLessThan(10)
})

test('a client under whom too much changes is closed, to fetch anew', async () => {
  await using controller = await startMemoryController({
    streamLimits: { ...quick, mergeMs: 500, pendingMax: 10 },
  })
  const { token } = await controller.signIn('viewer')
  const seen = readUntil(await open(controller, token), /never/)
  await new Promise((resolve) => setTimeout(resolve, 50))
  for (let index = 0; index < 50; index += 1) controller.change({ kind: 'incident', id: `INC-${index}` })
  expect(await seen).toContain('(closed)')
})

test('streams are few for each session, and a closed one makes room', async () => {
  await using controller = await startMemoryController({
    streamLimits: { ...quick, clientsPerSessionMax: 2 },
  })
  const { token } = await controller.signIn('viewer')
  const first = await open(controller, token)
  const second = await open(controller, token)
  expect([first.status, second.status, (await open(controller, token)).status]).toEqual([200, 200, 429])
  await first.body?.cancel()
  await expect.poll(async () => (await open(controller, token)).status, { timeout: 5_000 }).toBe(200)
  await second.body?.cancel()
})

test('a session that ends takes its stream with it', async () => {
  await using controller = await startMemoryController({ streamLimits: quick })
  const { token } = await controller.signIn('viewer')
  const seen = readUntil(await open(controller, token), /never/)
  controller.operators.logOut(token)
  expect(await seen).toContain('(closed)')
})

test('the controller stops although streams are open', async () => {
  const controller = await startMemoryController({ streamLimits: quick })
  const { token } = await controller.signIn('viewer')
  const seen = readUntil(await open(controller, token), /never/).catch(() => '(closed)')
  await controller[Symbol.asyncDispose]()
  expect(await seen).toContain('(closed)')
})
