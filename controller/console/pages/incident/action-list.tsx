/** Actions with where each stands, live; opened, each tells its steps and what was measured. */
import { ChevronDown, ChevronRight } from 'lucide-react'
import { useState } from 'react'
import { Link } from 'wouter'
import { actionInWords, proofInWords } from '../../../dispatch/action-words.ts'
import { useSession } from '../../api/queries.ts'
import type { Action } from '../../api/types.ts'
import { CommandLine } from '../../ui/copy.tsx'
import { durationInWords, Time } from '../../ui/time.tsx'
import { ActionMark, actionStateWord, phaseOf } from '../../ui/words.tsx'
import { CancelDialog } from './dialogs.tsx'

const SHOWN = 50

export function ActionList({
  actions,
  withIncident = false,
}: {
  readonly actions: readonly Action[]
  readonly withIncident?: boolean
}) {
  return (
    <ul className="log">
      {actions.slice(0, SHOWN).map((action) => (
        <ActionEntry key={action.id} action={action} withIncident={withIncident} />
      ))}
      {actions.length > SHOWN ? (
        <li className="mut">{actions.length - SHOWN} more: cordon action ls</li>
      ) : null}
    </ul>
  )
}

function ActionEntry({ action, withIncident }: { readonly action: Action; readonly withIncident: boolean }) {
  const [isOpen, setOpen] = useState(false)
  const [cancels, setCancels] = useState(false)
  const session = useSession()
  const phase = phaseOf(action.state)
  const canCancel = (phase === 'underWay' || phase === 'waiting') && session.data?.role !== 'viewer'
  const last = action.steps.at(-1)
  const tookMs = last === undefined ? null : Date.parse(last.at) - Date.parse(action.createdAt)
  const Chevron = isOpen ? ChevronDown : ChevronRight
  return (
    <li className={phase}>
      <ActionMark state={action.state} />
      <div>
        <button type="button" className="ttl" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
          {actionInWords(action)}
          <Chevron size={12} aria-hidden />
        </button>
        <small>
          <span className={`as ${phase}`}>{actionStateWord(action.state)}</span>
          {phase === 'done' && tookMs !== null ? ` in ${durationInWords(tookMs)}` : ''} · {action.hostName}
          {withIncident && action.incidentId !== null ? (
            <>
              {' · '}
              <Link href={`/incidents/${action.incidentId}`}>{action.incidentId}</Link>
            </>
          ) : null}
        </small>
        {phase === 'wrong' && last !== undefined && last.reason !== '' ? (
          <small className="why">{last.reason}</small>
        ) : null}
        {isOpen ? <Steps action={action} /> : null}
      </div>
      {canCancel ? (
        <button type="button" className="lnk" onClick={() => setCancels(true)}>
          Cancel
        </button>
      ) : null}
      {cancels ? <CancelDialog action={action} close={() => setCancels(false)} /> : null}
    </li>
  )
}

function Steps({ action }: { readonly action: Action }) {
  return (
    <>
      <ol className="asteps">
        {action.steps.map((step) => {
          const proof = proofInWords(step.proof)
          return (
            <li key={`${step.state} ${step.at}`}>
              <Time at={step.at} form="clock" />
              <div>
                <b>{actionStateWord(step.state)}</b> <span className="mut">by {step.by}</span>
                {step.reason === '' ? null : <p>{step.reason}</p>}
                {proof === '' ? null : <p className="mo proof">{proof}</p>}
              </div>
            </li>
          )
        })}
      </ol>
      <CommandLine command={`cordon action get ${action.id.slice(0, 12)}`} />
    </>
  )
}
