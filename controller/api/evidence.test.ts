import { createHash } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startMemoryController } from './testing/memory-controller.ts'
import { COMING_ID, EVIDENCE_CONTENT, EVIDENCE_ID } from './testing/memory-evidence.ts'

let controller: Awaited<ReturnType<typeof startMemoryController>>
let responder: string
let viewer: string
beforeAll(async () => {
  controller = await startMemoryController()
  responder = (await controller.signIn('responder')).token
  viewer = (await controller.signIn('viewer')).token
})
afterAll(() => controller[Symbol.asyncDispose]())

const get = (path: string, token = responder) =>
  fetch(`${controller.url}/api/v1${path}`, {
    headers: { authorization: `Bearer ${token}` },
    signal: AbortSignal.timeout(20_000),
  })

test('the bytes come as an attachment under a name that no host chose, and that is written down', async () => {
  const before = controller.audit.length
  const answer = await get(`/evidence/${EVIDENCE_ID}/content`)
  expect(answer.status).toBe(200)
  expect(answer.headers.get('content-type')).toBe('application/octet-stream')
  expect(answer.headers.get('content-disposition')).toBe(`attachment; filename="evidence-${EVIDENCE_ID}"`)
  expect(answer.headers.get('x-content-type-options')).toBe('nosniff')
  expect(answer.headers.get('set-cookie')).toBeNull()
  const bytes = Buffer.from(await answer.arrayBuffer())
  expect(bytes.equals(EVIDENCE_CONTENT)).toBe(true)
  expect(answer.headers.get('x-cordon-sha256')).toBe(createHash('sha256').update(bytes).digest('hex'))
  expect(controller.audit.slice(before)).toMatchObject([
    { by: 'responder-user', action: 'evidence.download', subject: EVIDENCE_ID },
  ])
})

test('a download goes on from where it broke off, at any offset up to the end', async () => {
  for (const offset of [1, 262_144, EVIDENCE_CONTENT.length - 1, EVIDENCE_CONTENT.length]) {
    const answer = await get(`/evidence/${EVIDENCE_ID}/content?offset=${offset}`)
    expect(answer.status).toBe(200)
    const bytes = Buffer.from(await answer.arrayBuffer())
    expect(bytes.equals(EVIDENCE_CONTENT.subarray(offset))).toBe(true)
  }
  expect((await get(`/evidence/${EVIDENCE_ID}/content?offset=${EVIDENCE_CONTENT.length + 1}`)).status).toBe(
    422,
  )
  expect((await get(`/evidence/${EVIDENCE_ID}/content?offset=-1`)).status).toBe(400)
})

test('a viewer sees what there is, and gets no bytes; what is not whole gives none to anybody', async () => {
  expect((await get('/evidence', viewer)).status).toBe(200)
  expect((await get(`/evidence/${EVIDENCE_ID}`, viewer)).status).toBe(200)
  const before = controller.audit.length
  expect((await get(`/evidence/${EVIDENCE_ID}/content`, viewer)).status).toBe(403)
  expect((await get(`/evidence/${COMING_ID}/content`)).status).toBe(409)
  expect((await get(`/evidence/${'0'.repeat(32)}/content`)).status).toBe(404)
  expect((await get('/evidence/..%2f..%2fetc%2fpasswd/content')).status).toBe(400)
  expect(controller.audit).toHaveLength(before)
})
