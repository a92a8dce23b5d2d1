/**
 * Brings queued commands to their agents. The wrapper is made when a live session is there: it carries that
 * session's nonce and a sequence that was committed before, so nothing sent once can be sent again as new.
 * A command whose session ended before the agent had it is sent again under the same id, which the agent
 * journals before it acts: it is executed once at most.
 */
import type { KeyObject } from 'node:crypto'
import { createMerkleTree, type MerkleTree } from '../../shared/node/merkle.ts'
import { sha256Hex, signBytes } from '../../shared/node/signing.ts'
import type { Keyset, Wrapper } from '../../shared/protocol/commands.ts'
import { SIGNATURES_MAX } from '../../shared/protocol/limits.ts'
import type { Command, ControllerMessage } from '../../shared/protocol/messages.ts'
import type { ActionRow } from '../state/actions-table.ts'
import type { State } from '../state/state.ts'
import { standingOf } from './signatures.ts'
import type { Steps } from './steps.ts'

/** A report may still be on its way when the command has just expired. */
const REPORT_GRACE_MS = 60_000
const EXPIRED_PER_ROUND_MAX = 1_000

export interface DeliveryDependencies {
  readonly state: State
  readonly steps: Steps
  readonly controllerKey: KeyObject
  readonly keyset: () => Keyset
  /** False when the agent has no live session; then nothing was sent. */
  readonly send: (agentId: string, message: ControllerMessage) => boolean
  /** The nonce of the agent's live session. */
  readonly nonceOf: (agentId: string) => string | undefined
  readonly nowMs: () => number
}

export interface Delivery {
  /** Sends what waits for these agents, as far as they are connected. */
  deliver(agentIds: Iterable<string>): void
  /** Ends what was not delivered in time, and says of what was sent and never answered that it is unknown. */
  expire(): void
}

interface Outgoing {
  readonly row: ActionRow
  readonly message: ControllerMessage
}

export function createDelivery(dependencies: DeliveryDependencies): Delivery {
  const { state, steps, send, nonceOf, nowMs } = dependencies

  /** Writes down the sending of all that waits for one agent; the messages leave after the commit. */
  const prepare = (agentId: string, trees: Map<string, MerkleTree>): readonly Outgoing[] => {
    const nonce = nonceOf(agentId)
    // Under an expired keyset an agent refuses for good; a newer keyset can still come in time.
    if (nonce === undefined || dependencies.keyset().expires <= nowMs()) return []
    const outgoing: Outgoing[] = []
    for (const row of state.actions.openOfAgent(agentId)) {
      if (row.cancel_by !== null) {
        if ((row.state === 'sent' || row.state === 'received') && row.session_nonce !== nonce) {
          state.actions.delivered(row.command_id, nonce)
          outgoing.push({ row, message: { kind: 'cancelCommand', commandId: row.command_id } })
        }
        continue
      }
      const again = row.state === 'sent' && row.session_nonce !== nonce
      if ((row.state !== 'queued' && !again) || row.expires_ms <= nowMs()) continue
      const message = commandOf(row, nonce, trees)
      if (message === undefined) continue
      state.actions.delivered(row.command_id, nonce)
      steps.take(row, {
        state: 'sent',
        atMs: nowMs(),
        by: 'controller',
        reason: again ? 'Sent again: the session ended before the agent confirmed it.' : '',
      })
      outgoing.push({ row, message })
    }
    return outgoing
  }

  const commandOf = (row: ActionRow, nonce: string, trees: Map<string, MerkleTree>): Command | undefined => {
    const intent = state.intents.get(row.intent_id)
    if (intent === undefined) throw new Error(`command ${row.command_id} has no intent`)
    const keyset = dependencies.keyset()
    const standing = standingOf(row.class, state.intents.signatures(row.intent_id), keyset)
    if (standing.needed > 0) {
      // An approver lost the right to sign since: the approval does not hold, another one is needed.
      if (row.state === 'queued') {
        const reason = `Under keyset ${keyset.version} it needs ${standing.needed} more signatures.`
        steps.take(row, { state: 'awaitingApproval', atMs: nowMs(), by: 'controller', reason })
      }
      return undefined
    }
    let tree = trees.get(row.intent_id)
    if (tree === undefined) {
      tree = createMerkleTree(state.actions.ofIntent(row.intent_id).map(({ leaf }) => leaf))
      trees.set(row.intent_id, tree)
    }
    const wrapper: Wrapper = {
      v: 1,
      commandId: row.command_id,
      intentHash: sha256Hex(intent.bytes),
      leafHash: sha256Hex(row.leaf),
      ...state.counters.nextDelivery(row.agent_id),
      sessionNonce: nonce,
      issued: nowMs(),
      keysetVersion: keyset.version,
    }
    const wrapperBytes = Buffer.from(JSON.stringify(wrapper))
    return {
      kind: 'command',
      intent: intent.bytes.toString('base64'),
      signatures:
        row.class === 'R'
          ? [signBytes('intent', intent.bytes, dependencies.controllerKey)]
          : standing.signatures.slice(0, SIGNATURES_MAX),
      leaf: row.leaf.toString('base64'),
      leafIndex: row.leaf_index,
      leafCount: tree.count,
      proof: tree.proof(row.leaf_index),
      wrapper: wrapperBytes.toString('base64'),
      wrapperSignature: signBytes('wrapper', wrapperBytes, dependencies.controllerKey),
    }
  }

  const sendAll = (outgoing: readonly Outgoing[]) => {
    const unsent = outgoing.filter(({ row, message }) => !send(row.agent_id, message))
    if (unsent.length === 0) return
    state.run(() => {
      for (const { row, message } of unsent) {
        state.actions.undelivered(row.command_id)
        if (message.kind !== 'command' || row.state !== 'queued') continue
        const reason = 'The session ended before it was sent.'
        steps.take(row, { state: 'queued', atMs: nowMs(), by: 'controller', reason })
      }
    })
  }

  return {
    deliver(agentIds) {
      state.run(() => {
        const trees = new Map<string, MerkleTree>()
        const outgoing = [...new Set(agentIds)].flatMap((agentId) => prepare(agentId, trees))
        if (outgoing.length > 0) state.afterCommit(() => sendAll(outgoing))
      })
    },
    expire() {
      state.run(() => {
        for (const row of state.actions.undeliveredExpired(nowMs(), EXPIRED_PER_ROUND_MAX)) {
          const reason =
            row.state === 'awaitingApproval'
              ? 'Not approved before it expired.'
              : 'Not delivered before it expired.'
          steps.take(row, { state: 'expired', atMs: nowMs(), by: 'controller', reason })
        }
        for (const row of state.actions.unanswered(nowMs() - REPORT_GRACE_MS, EXPIRED_PER_ROUND_MAX)) {
          const reason =
            'Sent, and never answered before it expired: it may have been applied. A late report will tell.'
          steps.take(row, { state: 'unknown', atMs: nowMs(), by: 'controller', reason })
        }
      })
    },
  }
}
