/** Loops and lifecycles: start is a call, stop is an abort, stopped is the promise. */
import { setTimeout as sleep } from 'node:timers/promises'

export type Task = (signal: AbortSignal) => Promise<void> | void

/** Runs `step`, then pauses, until `signal` aborts. A step that throws ends the loop with its error. */
export async function runEvery(intervalMs: number, signal: AbortSignal, step: Task): Promise<void> {
  while (!signal.aborted) {
    await step(signal)
    await pause(intervalMs, signal)
  }
}

/** Waits, or returns early when `signal` aborts: an abort during a pause is the normal way out. */
export async function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  await sleep(durationMs, undefined, { signal }).catch(() => undefined)
}

/** Resolves when `signal` aborts. */
export function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}

/**
 * Runs tasks side by side until all have ended. A task that fails, or ends unasked, stops the rest: nothing
 * dies in silence. Rejects with the first failure.
 */
export async function runTogether(signal: AbortSignal, tasks: readonly Task[]): Promise<void> {
  const stop = new AbortController()
  const stopAll = () => stop.abort()
  signal.addEventListener('abort', stopAll, { once: true })
  if (signal.aborted) stop.abort()
  let failure: { readonly cause: unknown } | undefined
  await Promise.all(
    tasks.map(async (task) => {
      try {
        await task(stop.signal)
        if (!stop.signal.aborted) failure ??= { cause: new Error(`${task.name || 'a task'} ended unasked`) }
      } catch (cause) {
        failure ??= { cause }
      }
      stop.abort()
    }),
  )
  signal.removeEventListener('abort', stopAll)
  if (failure) throw failure.cause
}
