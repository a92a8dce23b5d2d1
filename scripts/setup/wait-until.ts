/** Waits for what has no event of its own, in tests and benches alike. */
import { setTimeout as sleep } from 'node:timers/promises'

/** Calls `check` again and again until it does not throw; rejects with what it threw last when the time is over. */
export async function waitUntil<Value>(
  check: () => Value | Promise<Value>,
  { timeout, interval }: { readonly timeout: number; readonly interval: number },
): Promise<Value> {
  for (const untilMs = performance.now() + timeout; ; ) {
    try {
      return await check()
    } catch (error) {
      if (performance.now() > untilMs) throw error
      await sleep(interval)
    }
  }
}
