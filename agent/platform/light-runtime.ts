/** Settings of V8 for a program that runs on somebody else's machine: little memory, no helper threads at work. */
import { setFlagsFromString } from 'node:v8'

/**
 * Garbage is collected on the main thread alone. The agent's heap is small and a collection takes a millisecond;
 * four threads that wake for each of them cost a fifth of the agent's CPU (measured at 1,000 exec/s).
 */
const FLAGS = [
  '--no-parallel-scavenge',
  '--no-parallel-marking',
  '--no-concurrent-marking',
  '--no-concurrent-sweeping',
  '--no-parallel-compaction',
]

/** Called once, first of all. */
export function runLight(): void {
  for (const flag of FLAGS) setFlagsFromString(flag)
}
