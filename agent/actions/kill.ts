/**
 * Ends a process, with its descendants when asked. The target is named by what cannot be reused: pid, start
 * time, boot and content of the executable. A hold on the process (pidfd) is taken first and the start time
 * compared after, so the pid cannot pass to another in between.
 */
import { hashExecutable, isDead, type OpenProcess, readFacts, readStat } from '../platform/linux/processes.ts'
import type { ProcessKey } from '../sensors/records.ts'
import { type Action, type ApplyResult, elapsedMs, type Proof, type Refusal } from './action.ts'
import type { Interlock } from './interlock.ts'
import { killTree, signalDenied, stopTree, strayDescendants, type Tree, treeOfOne } from './process-tree.ts'

export interface KillOptions {
  readonly bootId: string
  readonly interlock: Interlock
  /** `createPidfdOpener(addon)`, or `openProcessByPid` where there is no addon. */
  readonly openProcess: OpenProcess
  /** Bytes of an executable that are hashed at most; a larger one cannot be compared and is refused. */
  readonly executableBytesMax?: number
  readonly knownDescendants?: (root: ProcessKey) => readonly ProcessKey[]
}

type Kill = Action<'killProcess'>
type Request = Parameters<Kill['apply']>[0]

const EXECUTABLE_BYTES_MAX = 1024 ** 3
const APPLY_TIMEOUT_MS = 30_000
/** Pids told in the proof; the count is always told. */
const PIDS_TOLD_MAX = 120

export function createKillAction(options: KillOptions): Kill {
  const treeOptions = {
    openProcess: options.openProcess,
    interlock: options.interlock,
    knownDescendants: options.knownDescendants ?? (() => []),
  }

  async function apply(request: Request, signal: AbortSignal): Promise<ApplyResult> {
    const startedMs = performance.now()
    const { target } = request
    const handle = options.openProcess(target.pid)
    if (!handle) return stale(target.pid, 'no process has this pid')
    const identity = await comparedIdentity(request, signal)
    if (identity.kind !== 'same') {
      handle[Symbol.dispose]()
      return identity
    }
    const key = { pid: target.pid, startTicks: target.startTicks }
    const root = { key, handle, stoppedBefore: identity.state === 'T' }
    const stopping = request.args.tree
      ? await stopTree(root, treeOptions, signal)
      : { kind: 'stopped' as const, tree: treeOfOne(root) }
    if (stopping.kind !== 'stopped') return stopping
    using tree = stopping.tree
    const { survivors, denied } = await killTree(tree, signal)
    const strays = request.args.tree ? strayDescendants(tree, treeOptions, key) : []
    const proof = {
      ...figures(tree),
      survivors: survivors.length + strays.length,
      tookMs: elapsedMs(startedMs),
    }
    if (denied.length > 0 && denied.length === tree.members.size) return signalDenied(target.pid)
    if (survivors.length + strays.length > 0) {
      const pids = [...survivors, ...strays].slice(0, 16).join(', ')
      const reason = `killed ${tree.members.size - survivors.length} processes, still running: ${pids}`
      return { kind: 'failed', reason, proof }
    }
    return { kind: 'applied', reason: `killed ${tree.members.size} of ${tree.members.size} processes`, proof }
  }

  /** Compares everything the operator signed about the process with what has the pid now. */
  async function comparedIdentity(
    { target }: Request,
    signal: AbortSignal,
  ): Promise<{ kind: 'same'; state: string } | Refusal | { kind: 'aborted' }> {
    const early = comparedStart(target)
    if (early) return early
    if (target.executableSha256 !== null) {
      const hash = await hashExecutable(
        target.pid,
        options.executableBytesMax ?? EXECUTABLE_BYTES_MAX,
        signal,
      )
      if (signal.aborted) return { kind: 'aborted' }
      if (hash.kind === 'unreadable') {
        const reason = `the executable of process ${target.pid} could not be compared: ${hash.reason}`
        return { kind: 'refused', code: 'unreadable', reason }
      }
      if (hash.sha256 !== target.executableSha256) {
        const reason = `process ${target.pid} runs another executable (SHA-256 ${hash.sha256}) than the one signed for`
        return { kind: 'refused', code: 'executableChanged', reason }
      }
    }
    // After the hash: what was opened through the pid belonged to the target if it still has the pid.
    const late = comparedStart(target)
    if (late) return late
    const facts = readFacts(target.pid)
    if (!facts || facts.startTicks !== target.startTicks) return stale(target.pid, 'it ended just now')
    const permission = options.interlock.permitsProcess(facts)
    if (!permission.ok) return { kind: 'refused', code: 'interlock', reason: permission.reason }
    return { kind: 'same', state: facts.state }
  }

  function comparedStart(target: Request['target']): Refusal | null {
    if (target.bootId !== options.bootId) {
      return stale(target.pid, `it ran in another boot (${target.bootId}) than this one (${options.bootId})`)
    }
    const stat = readStat(target.pid)
    if (!stat) return stale(target.pid, 'no process has this pid')
    if (stat.startTicks !== target.startTicks) {
      return stale(
        target.pid,
        `the pid belongs to a process started at tick ${stat.startTicks}, not ${target.startTicks}`,
      )
    }
    return isDead(stat) ? stale(target.pid, 'it has already exited') : null
  }

  return {
    idempotent: true,
    access: 'exclusive',
    timeoutMs: APPLY_TIMEOUT_MS,
    key: (target) => `process:${target.pid}:${target.startTicks}`,
    async check({ target }) {
      return comparedStart(target) ?? { kind: 'ready' }
    },
    apply,
    async probe({ target }, applied) {
      if (target.bootId !== options.bootId) {
        const reason = 'the host was started anew since: nothing of that boot runs any more'
        return { kind: 'proved', reason, proof: { ...applied, gone: true, rebooted: true } }
      }
      const stat = readStat(target.pid)
      const proof: Proof = {
        ...applied,
        gone: !stat || stat.startTicks !== target.startTicks || isDead(stat),
      }
      if (!proof['gone']) {
        const reason = `process ${target.pid} still runs (state ${stat?.state ?? 'unknown'})`
        return { kind: 'disproved', reason, proof }
      }
      const left = !stat ? 'the pid is free' : 'the pid belongs to another process'
      const reason =
        stat?.startTicks === target.startTicks ? 'exited, its parent has not waited for it' : left
      return { kind: 'proved', reason: `the process is gone: ${reason}`, proof }
    },
  }
}

function figures(tree: Tree): Proof {
  const pids = [...tree.members.keys()]
  const told = pids.slice(0, PIDS_TOLD_MAX).join(',')
  const method = [...tree.members.values()][0]?.handle.method ?? 'none'
  return {
    method,
    processes: pids.length,
    pids: pids.length > PIDS_TOLD_MAX ? `${told},…` : told,
    rounds: tree.rounds,
    complete: tree.complete,
  }
}

function stale(pid: number, why: string): Refusal {
  return { kind: 'refused', code: 'stale', reason: `process ${pid} is not the one signed for: ${why}` }
}
