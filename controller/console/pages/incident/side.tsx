/** The right side of an incident: what waits for a signature, what to do next, and what was done. */
import type { UseQueryResult } from '@tanstack/react-query'
import { Clock3, KeyRound } from 'lucide-react'
import { useState } from 'react'
import { actionInWords } from '../../../dispatch/action-words.ts'
import { useNextSteps, useSession } from '../../api/queries.ts'
import type { Action } from '../../api/types.ts'
import { CommandLine } from '../../ui/copy.tsx'
import { useNowMs } from '../../ui/now.ts'
import { Failed, Loading } from '../../ui/states.tsx'
import { durationInWords } from '../../ui/time.tsx'
import { ActionList } from './action-list.tsx'
import { CancelDialog } from './dialogs.tsx'

const WAITING_SHOWN = 8

export function Side({ id, actions }: { readonly id: string; readonly actions: UseQueryResult<Action[]> }) {
  const { data } = actions
  const waiting = (data ?? []).filter(({ state }) => state === 'awaitingApproval')
  const others = (data ?? []).filter(({ state }) => state !== 'awaitingApproval')
  return (
    <aside className="side" aria-label="Response">
      {waiting.slice(0, WAITING_SHOWN).map((action) => (
        <Approval key={action.id} action={action} />
      ))}
      {waiting.length > WAITING_SHOWN ? (
        <p className="mut pad">
          {waiting.length - WAITING_SHOWN} more wait: <code>cordon action ls {id}</code>
        </p>
      ) : null}
      <NextSteps id={id} />
      <section className="blk">
        <h3>
          Actions<span className="mut">{others.length === 0 ? '' : others.length}</span>
        </h3>
        {data === undefined ? (
          actions.isError ? (
            <Failed error={actions.error} retry={() => actions.refetch()} />
          ) : (
            <Loading what="actions" />
          )
        ) : others.length === 0 ? (
          <p className="mut">Nothing was done yet. Commands to begin with stand above.</p>
        ) : (
          <ActionList actions={others} />
        )}
      </section>
    </aside>
  )
}

/** Signed with a key that this console does not have: the command does it, and what comes of it shows here. */
function Approval({ action }: { readonly action: Action }) {
  const nowMs = useNowMs()
  const session = useSession()
  const [cancels, setCancels] = useState(false)
  const leftMs = Date.parse(action.expiresAt) - nowMs
  return (
    <section className="appr" aria-label={`Approval needed: ${actionInWords(action)}`}>
      <div className="ah">
        <KeyRound size={14} aria-hidden />
        <b>Approval needed</b>
        <span className="grow" />
        <span className="mut" title="Time left to sign it">
          <Clock3 size={12} aria-hidden />
          {leftMs > 0 ? durationInWords(leftMs) : 'expired'}
        </span>
      </div>
      <p>
        {actionInWords(action)} on <b>{action.hostName}</b>
      </p>
      <small>
        Asked for by {action.requestedBy}: {action.reason}
      </small>
      <CommandLine command={`cordon action approve ${action.id.slice(0, 12)} --wait`} />
      <div className="two">
        <span className="mut">Signed with your own key, in your terminal.</span>
        <button
          type="button"
          className="btn gh sm"
          onClick={() => setCancels(true)}
          disabled={session.data?.role === 'viewer'}
        >
          Cancel
        </button>
      </div>
      {cancels ? <CancelDialog action={action} close={() => setCancels(false)} /> : null}
    </section>
  )
}

function NextSteps({ id }: { readonly id: string }) {
  const next = useNextSteps(id)
  // What waits for a signature stands above already.
  const steps = (next.data ?? []).filter(({ command }) => !command?.startsWith('cordon action approve'))
  if (next.data === undefined) return next.isError ? null : <Loading what="next steps" />
  if (steps.length === 0) return null
  return (
    <section className="blk">
      <h3>
        Next<span className="mut">commands, signed with your own key</span>
      </h3>
      {steps.map(({ why, command }) => (
        <div className="cmd" key={`${why} ${command}`}>
          <small>{why}</small>
          {command === null ? null : <CommandLine command={command} />}
        </div>
      ))}
    </section>
  )
}
