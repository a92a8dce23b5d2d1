/** Processes that tests make, and may therefore end: each knows its children and is ended with the test. */
import { type ChildProcess, spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ProcessTarget } from '../../../shared/protocol/commands.ts'
import { readBootId } from '../../platform/linux/host.ts'
import { readStat } from '../../platform/linux/processes.ts'

export interface TestProcesses extends AsyncDisposable {
  /** Starts a program in a session of its own; ended when the test is over. */
  start(command: string, args: readonly string[], options?: { cwd?: string }): Promise<number>
  /** A shell script. */
  shell(script: string, options?: { cwd?: string }): Promise<number>
}

export function createTestProcesses(): TestProcesses {
  const started: ChildProcess[] = []
  const start: TestProcesses['start'] = async (command, args, options = {}) => {
    const child = spawn(command, args, { ...options, detached: true, stdio: 'ignore' })
    started.push(child)
    if (child.pid === undefined) throw new Error(`${command} did not start`)
    // Until exec, the child still looks like this process.
    const own = readStat(process.pid)?.name
    await waitFor(() => readStat(child.pid ?? 0)?.name !== own)
    return child.pid
  }
  return {
    start,
    shell: (script, options) => start('/bin/sh', ['-c', script], options),
    async [Symbol.asyncDispose]() {
      for (const child of started) {
        // The whole group, which is the child's own; it may be gone already.
        if (child.pid !== undefined) endGroup(child.pid)
        if (child.exitCode === null && child.signalCode === null) {
          await new Promise((resolve) => child.once('exit', resolve))
        }
      }
    },
  }
}

function endGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // Nothing of the group is left.
  }
}

export async function waitFor(holds: () => boolean, timeoutMs = 20_000): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs
  while (!holds()) {
    if (performance.now() > deadlineMs) throw new Error('what was waited for did not happen')
    await sleep(5)
  }
}

/** The target as an operator would sign it. */
export function targetOf(pid: number, executableSha256: string | null = null): ProcessTarget {
  const stat = readStat(pid)
  if (!stat) throw new Error(`no process ${pid}`)
  return { kind: 'process', pid, startTicks: stat.startTicks, bootId: readBootId(), executableSha256 }
}
