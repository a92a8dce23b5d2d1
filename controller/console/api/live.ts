/**
 * The stream of changes: what it names is fetched anew. Changes are gathered and applied at most once in a tenth
 * of a second, and nothing is asked for twice at the same time. A stream that breaks is opened again, later
 * and later; whatever changed meanwhile is fetched then.
 */
import { type QueryClient, type QueryKey, useQueryClient } from '@tanstack/react-query'
import { createContext, useEffect, useState } from 'react'
import { SESSION_KEY } from './queries.ts'
import type { Change } from './types.ts'

const APPLY_MS = 100
const RETRY_MS_MIN = 1_000
const RETRY_MS_MAX = 30_000

export type LiveState = 'connecting' | 'live' | 'broken'

export const LiveContext = createContext<LiveState>('connecting')

/** Keys to fetch anew because of a change; a key stands for all that begin with it. */
function keysOf(change: Change): readonly QueryKey[] {
  switch (change.kind) {
    case 'incident':
      return [
        ['incidents', 'list'],
        ['incidents', 'one', change.id],
      ]
    case 'action':
      // An action's steps stand in the timeline of its incident, too; which one that is, the change does not say.
      return [['actions'], ['incidents', 'one']]
    case 'host':
      return [
        ['hosts', 'list'],
        ['hosts', 'one', change.id],
      ]
    case 'events':
      return []
  }
}

export function useLiveChanges(): LiveState {
  const client = useQueryClient()
  const [state, setState] = useState<LiveState>('connecting')
  useEffect(() => {
    const stop = new AbortController()
    follow(client, setState, stop.signal)
    return () => stop.abort()
  }, [client])
  return state
}

function follow(client: QueryClient, tell: (state: LiveState) => void, signal: AbortSignal): void {
  const pending = new Map<string, QueryKey>()
  let retryMs = RETRY_MS_MIN
  let wasBroken = false

  const apply = () => {
    for (const [name, queryKey] of pending) {
      // What is being fetched may have been read before the change: it waits for its turn.
      if (client.isFetching({ queryKey }) > 0) continue
      pending.delete(name)
      client.invalidateQueries({ queryKey })
    }
  }
  const timer = setInterval(apply, APPLY_MS)
  signal.addEventListener('abort', () => clearInterval(timer))

  const open = () => {
    if (signal.aborted) return
    const source = new EventSource('/api/v1/stream')
    const close = () => source.close()
    signal.addEventListener('abort', close, { once: true })
    source.addEventListener('ready', () => {
      retryMs = RETRY_MS_MIN
      tell('live')
      if (wasBroken) client.invalidateQueries({ predicate: ({ queryKey }) => queryKey[0] !== 'raw' })
      wasBroken = false
    })
    source.addEventListener('change', ({ data }: MessageEvent<string>) => {
      for (const key of keysOf(JSON.parse(data) as Change)) pending.set(JSON.stringify(key), key)
    })
    source.addEventListener('error', () => {
      // Its own attempts come too fast for a fleet of consoles after a restart.
      close()
      signal.removeEventListener('abort', close)
      if (signal.aborted) return
      wasBroken = true
      tell('broken')
      // An ended session ends the stream, too: this tells which it was.
      client.invalidateQueries({ queryKey: SESSION_KEY })
      setTimeout(open, retryMs * (0.75 + Math.random() / 2))
      retryMs = Math.min(RETRY_MS_MAX, retryMs * 2)
    })
  }
  open()
}
