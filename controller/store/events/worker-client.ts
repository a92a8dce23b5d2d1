/** Calls into a worker thread of the store, as promises. */
import { join } from 'node:path'
import type { Worker } from 'node:worker_threads'
import { startWorker } from '../../../shared/node/assets.ts'
import type { Logger } from '../../../shared/node/logger.ts'
import type { Cursor } from '../event-store.ts'
import type { FileHour } from './event-file.ts'
import type { WorkerCall, WorkerCalls, WorkerMessage, WorkerOptions } from './worker-protocol.ts'

export function startStoreWorker(options: WorkerOptions): Worker {
  return startWorker(join(import.meta.dirname, 'store-worker.ts'), {
    name: `store ${options.role}`,
    workerData: options,
  })
}

export interface WorkerClient {
  /** Resolves when the worker has opened its files; rejects when it cannot. */
  readonly ready: Promise<{ readonly head: Cursor; readonly unsealed: readonly FileHour[] }>
  /** Rejects when the worker says so, or dies. */
  call<Call extends WorkerCall>(
    call: Call,
    takes: WorkerCalls[Call]['takes'],
    move?: readonly ArrayBuffer[],
  ): Promise<WorkerCalls[Call]['gives']>
  /** Calls that wait for their answer. */
  pending(): number
  /** Lets the worker finish what it has and ends it. */
  close(): Promise<void>
}

export interface WorkerClientOptions {
  readonly worker: Worker
  readonly logger: Logger
  readonly onRolled?: (hour: FileHour) => void
  /** The worker died without being asked to. */
  readonly onDied: (cause: Error) => void
}

export function createWorkerClient(options: WorkerClientOptions): WorkerClient {
  const { worker, logger } = options
  const waiting = new Map<number, { resolve: (gives: unknown) => void; reject: (cause: Error) => void }>()
  const ready = Promise.withResolvers<{ readonly head: Cursor; readonly unsealed: readonly FileHour[] }>()
  // The caller of the constructor awaits it; a worker that dies later must not be an unhandled rejection.
  ready.promise.catch(() => undefined)
  let lastId = 0
  let closing = false
  let dead: Error | null = null

  const die = (cause: Error): void => {
    if (dead) return
    dead = cause
    ready.reject(cause)
    for (const { reject } of waiting.values()) reject(cause)
    waiting.clear()
    if (!closing) options.onDied(cause)
  }

  worker.on('message', (message: WorkerMessage) => {
    switch (message.kind) {
      case 'ready':
        ready.resolve(message)
        break
      case 'log':
        logger[message.level](message.detail, message.text)
        break
      case 'rolled':
        options.onRolled?.(message.hour)
        break
      case 'replies':
        for (const reply of message.replies) {
          const call = waiting.get(reply.id)
          waiting.delete(reply.id)
          if (reply.ok) call?.resolve(reply.gives)
          else call?.reject(new Error(reply.message))
        }
        break
    }
  })
  worker.on('error', (cause) => die(cause instanceof Error ? cause : new Error(String(cause))))
  worker.on('exit', (code) => die(new Error(`the store's worker ended with code ${code}`)))

  const call: WorkerClient['call'] = (name, takes, move = []) => {
    if (dead) return Promise.reject(dead)
    lastId += 1
    const id = lastId
    return new Promise((resolve, reject) => {
      waiting.set(id, { resolve: resolve as (gives: unknown) => void, reject })
      worker.postMessage({ id, call: name, takes }, move)
    })
  }

  return {
    ready: ready.promise,
    call,
    pending: () => waiting.size,
    async close() {
      if (dead) return
      closing = true
      await call('close', null).catch(() => undefined)
      await worker.terminate()
    },
  }
}
