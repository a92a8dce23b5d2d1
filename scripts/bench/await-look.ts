/** Waits until a simulated fleet is where a bench wants it. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Look, SimulatedFleet } from './simulate/fleet.ts'

const LOOK_MS = 50

/** Rejects after `waitMs` with what the fleet said last. */
export async function awaitLook(
  simulated: SimulatedFleet,
  waitMs: number,
  what: string,
  isSo: (look: Look) => boolean,
): Promise<Look> {
  let look = await simulated.ask({ kind: 'look' })
  for (const untilMs = performance.now() + waitMs; !isSo(look) && performance.now() < untilMs; ) {
    await sleep(LOOK_MS)
    look = await simulated.ask({ kind: 'look' })
  }
  if (isSo(look)) return look
  const { latencies: _, ...told } = look
  throw new Error(`after ${waitMs / 1_000} s it is not so that ${what}: ${JSON.stringify(told)}`)
}
