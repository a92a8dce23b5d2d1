/** Entry of the store's worker threads: one writes, two read, one builds indexes. `workerData` says which. */
import { parentPort, workerData } from 'node:worker_threads'
import { createEventReader } from './reader.ts'
import { sealEventFile } from './sealer.ts'
import type {
  PackedBatch,
  WorkerCall,
  WorkerCalls,
  WorkerLog,
  WorkerMessage,
  WorkerOptions,
  WorkerReply,
  WorkerRequest,
} from './worker-protocol.ts'
import { createEventWriter } from './writer.ts'

type Answers = {
  readonly [Call in WorkerCall]?: (takes: WorkerCalls[Call]['takes']) => WorkerCalls[Call]['gives']
}

const port = parentPort
if (!port) throw new Error('this file is the entry of a worker thread')
const options: WorkerOptions = workerData

const post = (message: WorkerMessage): void => port.postMessage(message)
const log: WorkerLog = (level, text, detail = {}) => post({ kind: 'log', level, text, detail })

switch (options.role) {
  case 'writer':
    serveWriter()
    break
  case 'reader':
    serveReader()
    break
  case 'sealer':
    serve({ seal: ({ hour }) => seal(hour), close: () => null })
    post({ kind: 'ready', head: '', unsealed: [] })
    break
}

function seal(hour: string): null {
  sealEventFile({ ...options, hour })
  return null
}

function serveReader(): void {
  const reader = createEventReader({ ...options, log })
  serve({
    readAfter: ({ cursor, rowsMax }) => reader.readAfter(cursor, rowsMax),
    search: (request) => reader.search(request),
    counts: () => reader.counts(),
    forget: ({ hours }) => {
      reader.forget(hours)
      return null
    },
    close: () => {
      reader.close()
      return null
    },
  })
  post({ kind: 'ready', head: '', unsealed: [] })
}

/** Appends wait a moment for company: one transaction, and one fsync, serves all that came meanwhile. */
function serveWriter(): void {
  const writer = createEventWriter({ ...options, log, onRolled: (hour) => post({ kind: 'rolled', hour }) })
  let group: { id: number; packed: PackedBatch }[] = []
  const commit = (): void => {
    if (group.length === 0) return
    const committed = group
    group = []
    const results = writer.append(committed.map(({ packed }) => packed))
    const replies = committed.map(({ id }, index): WorkerReply => ({ id, ok: true, gives: results[index] }))
    post({ kind: 'replies', replies })
  }
  const answer = serve(
    {
      // What is asked after an append sees it.
      watermarks: ({ agentId, streamId }) => {
        commit()
        return writer.watermarks(agentId, streamId)
      },
      streams: ({ agentId }) => {
        commit()
        return writer.streams(agentId)
      },
      drop: ({ hours }) => writer.drop(hours),
      close: () => {
        commit()
        writer.close()
        return null
      },
    },
    (request) => {
      if (request.call !== 'append') {
        answer(request)
        return
      }
      if (group.length === 0) setTimeout(commit, options.groupMs)
      group.push({ id: request.id, packed: request.takes })
    },
  )
  post({ kind: 'ready', head: writer.head(), unsealed: writer.unsealed() })
}

function serve(answers: Answers, first?: (request: WorkerRequest) => void): (request: WorkerRequest) => void {
  const answer = (request: WorkerRequest): void => {
    post({ kind: 'replies', replies: [reply(answers, request)] })
    if (request.call === 'close') port?.close()
  }
  port?.on('message', first ?? answer)
  return answer
}

function reply(answers: Answers, request: WorkerRequest): WorkerReply {
  // The table's entry for a call takes what that call's request carries; the compiler cannot join the two.
  const run = answers[request.call] as ((takes: unknown) => unknown) | undefined
  if (!run) return { id: request.id, ok: false, message: `this worker does not answer ${request.call}` }
  try {
    return { id: request.id, ok: true, gives: run(request.takes) }
  } catch (error) {
    return { id: request.id, ok: false, message: error instanceof Error ? error.message : String(error) }
  }
}
