/** Keeps the agent small: what only its start needed is given back, and what piled up since, now and then. */
import { pause, runEvery } from '../../shared/node/loop.ts'

const FIRST_AFTER_MS = 30_000
const INTERVAL_MS = 600_000

/** Until `stop`. `release` null: without the native addon nothing can be given back. */
export async function keepSmall(release: (() => void) | null, stop: AbortSignal): Promise<void> {
  await pause(FIRST_AFTER_MS, stop)
  await runEvery(INTERVAL_MS, stop, () => release?.())
}
