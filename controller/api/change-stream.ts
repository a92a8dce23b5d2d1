/**
 * Live changes as server-sent events (WHATWG HTML, section 9.2). A stream only says what changed; whoever
 * shows it fetches it. Clients are few and bounded, changes of one thing are merged for a tenth of a second,
 * and a client that does not read is closed: it fetches anew when it comes back.
 */
import type { ServerResponse } from 'node:http'
import { runEvery } from '../../shared/node/loop.ts'
import type { Change, ChangeFeed } from './services.ts'

export interface StreamLimits {
  readonly clientsMax: number
  readonly clientsPerSessionMax: number
  readonly pendingMax: number
  readonly unsentBytesMax: number
  readonly mergeMs: number
  readonly heartbeatMs: number
}

export const STREAM_LIMITS: StreamLimits = {
  clientsMax: 256,
  clientsPerSessionMax: 16,
  pendingMax: 1_000,
  unsentBytesMax: 256 * 1024,
  mergeMs: 100,
  heartbeatMs: 15_000,
}

interface StreamClient {
  readonly sessionId: string
  /** Asked with each heartbeat: a session that ended takes its streams with it. */
  stillAllowed(): boolean
}

export interface ChangeStreams {
  /** Whether one more client may come; `serve` must follow at once. */
  hasRoom(sessionId: string): boolean
  serve(
    response: ServerResponse,
    headers: Readonly<Record<string, string>>,
    client: StreamClient,
    stop: AbortSignal,
  ): Promise<void>
}

export function createChangeStreams(feed: ChangeFeed, limits: StreamLimits = STREAM_LIMITS): ChangeStreams {
  const perSession = new Map<string, number>()
  let clients = 0

  return {
    hasRoom: (sessionId) =>
      clients < limits.clientsMax && (perSession.get(sessionId) ?? 0) < limits.clientsPerSessionMax,

    async serve(response, headers, client, stop) {
      clients += 1
      perSession.set(client.sessionId, (perSession.get(client.sessionId) ?? 0) + 1)
      const ended = new AbortController()
      const end = () => ended.abort()
      response.once('close', end)
      response.once('error', end)
      stop.addEventListener('abort', end, { once: true })
      if (stop.aborted) end()
      try {
        response.writeHead(200, {
          ...headers,
          'content-type': 'text/event-stream; charset=utf-8',
          'x-accel-buffering': 'no',
        })
        response.write('event: ready\ndata: {}\n\n')
        await follow(feed, response, client, limits, ended)
      } finally {
        stop.removeEventListener('abort', end)
        response.end()
        clients -= 1
        const left = (perSession.get(client.sessionId) ?? 1) - 1
        if (left > 0) perSession.set(client.sessionId, left)
        else perSession.delete(client.sessionId)
      }
    },
  }
}

async function follow(
  feed: ChangeFeed,
  response: ServerResponse,
  client: StreamClient,
  limits: StreamLimits,
  ended: AbortController,
): Promise<void> {
  const pending = new Map<string, Change>()
  feed.subscribe((change) => {
    const key = change.kind === 'events' ? 'events' : `${change.kind} ${change.id}`
    // Last of its kind wins, and stands where the newest change stands.
    pending.delete(key)
    pending.set(key, change)
    if (pending.size > limits.pendingMax) ended.abort()
  }, ended.signal)

  const stepsPerHeartbeat = Math.max(1, Math.round(limits.heartbeatMs / limits.mergeMs))
  let steps = 0
  await runEvery(limits.mergeMs, ended.signal, () => {
    steps += 1
    if (response.writableLength > limits.unsentBytesMax) return ended.abort()
    for (const change of pending.values())
      response.write(`event: change\ndata: ${JSON.stringify(change)}\n\n`)
    pending.clear()
    if (steps % stepsPerHeartbeat !== 0) return
    if (!client.stillAllowed()) return ended.abort()
    response.write(': alive\n\n')
  })
}
