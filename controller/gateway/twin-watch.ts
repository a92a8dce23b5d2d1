/**
 * Tells two hosts with one identity from one host that connects again. Two proofs, and nothing less:
 *
 * - both are alive at once: the holder of the place answers a ping that was sent after the other's hello. A host
 *   that reconnects has closed its old connection or lost it, one that rebooted has forgotten it, and of a
 *   restored snapshot nobody is left to answer.
 * - they come in turns: a boot, another, the first again, the other again. A boot that ended never comes back,
 *   a restored snapshot brings one back once.
 */
import type { GatewayLimits, GatewayOptions, Twin } from './ports.ts'
import type { Session } from './session.ts'

/** Turns older than this are forgotten. */
const TURNS_MS = 24 * 3_600_000
const TURNS_MAX = 4
const AGENTS_MAX = 20_000

interface Turn extends Twin {
  readonly atMs: number
}

export interface TwinWatch {
  /** Resolves when the place of `holder` is free for `session`, or when `session` was sent away. */
  claim(session: Session, twin: Twin, holder: Session | undefined): Promise<void>
  /** Called now and then. */
  forget(): void
}

export function createTwinWatch(options: {
  readonly limits: Pick<GatewayLimits, 'challengeMs'>
  readonly monotonic: () => number
  readonly onTwins: GatewayOptions<unknown>['onTwins']
}): TwinWatch {
  const { limits, monotonic, onTwins } = options
  const claimants = new Map<string, Session>()
  const turns = new Map<string, readonly Turn[]>()

  const tell = (session: Session, twins: readonly Twin[], how: string) => {
    turns.delete(session.agentId)
    onTwins(session.agentId, twins, how)
    // For a handler that held nobody: neither may go on.
    session.end('held', how, 0)
  }

  /** The other of two boots that take turns, when they do. */
  const noteTurn = (agentId: string, twin: Twin): Turn | undefined => {
    const nowMs = monotonic()
    const before = (turns.get(agentId) ?? []).filter(({ atMs }) => nowMs - atMs < TURNS_MS)
    const last = before.at(-1)
    const kept = last?.bootId === twin.bootId ? before.slice(0, -1) : before
    const now = [...kept, { ...twin, atMs: nowMs }].slice(-TURNS_MAX)
    turns.delete(agentId)
    turns.set(agentId, now)
    const oldest = turns.keys().next().value
    if (turns.size > AGENTS_MAX && oldest !== undefined) turns.delete(oldest)
    const [first, second, third, fourth] = now.map(({ bootId }) => bootId)
    return fourth !== undefined && first === third && second === fourth ? now[2] : undefined
  }

  return {
    async claim(session, twin, holder) {
      const { agentId } = session
      const other = noteTurn(agentId, twin)
      if (other !== undefined) {
        tell(session, [other, twin], 'hosts of two boots use this identity in turns')
        return
      }
      if (!holder) return
      claimants.get(agentId)?.end('replaced', 'the agent connected again')
      claimants.set(agentId, session)
      const isAlive = await holder.isAlive(limits.challengeMs)
      if (claimants.get(agentId) !== session) return
      claimants.delete(agentId)
      if (!isAlive) return
      const both = [...(holder.twin ? [holder.twin] : []), twin]
      tell(session, both, 'two hosts use this identity at the same time')
      holder.end('held', 'two hosts use this identity at the same time', 0)
    },
    forget() {
      const nowMs = monotonic()
      for (const [agentId, [first]] of turns) {
        if (first && nowMs - first.atMs > TURNS_MS) turns.delete(agentId)
        else break
      }
    },
  }
}
