/** One incident: what happened, is it contained, what is the next decision? */
import { useState } from 'react'
import { useActions, useDetections, useIncident, useProcesses } from '../api/queries.ts'
import { useAddress } from '../frame/address.ts'
import { useShortcuts } from '../frame/keys.ts'
import { Failed, Loading } from '../ui/states.tsx'
import { CloseDialog, NoteDialog } from './incident/dialogs.tsx'
import { IncidentHead } from './incident/head.tsx'
import { Side } from './incident/side.tsx'
import { Timeline } from './incident/timeline.tsx'
import { TreePane } from './incident/tree-pane.tsx'

export function IncidentPage({ id }: { readonly id: string }) {
  const incident = useIncident(id)
  const detections = useDetections(id)
  const actions = useActions({ incidentId: id })
  const address = useAddress()
  const scope = address.get('scope') === 'all' ? 'all' : 'path'
  const processes = useProcesses(id, scope)
  const [dialog, setDialog] = useState<'note' | 'close' | null>(null)
  const canClose = incident.data !== undefined && incident.data.status !== 'closed'
  useShortcuts({
    n: () => setDialog('note'),
    e: () => (canClose ? setDialog('close') : undefined),
  })
  if (incident.data === undefined) {
    return incident.isError ? (
      <Failed error={incident.error} retry={() => incident.refetch()} />
    ) : (
      <Loading what={id} />
    )
  }
  const view = address.get('view') === 'timeline' ? 'timeline' : 'tree'
  return (
    <section className="incident">
      <IncidentHead
        incident={incident.data}
        detections={detections.data ?? []}
        note={() => setDialog('note')}
        close={() => setDialog('close')}
      />
      <div className="panes" data-view={view}>
        <TreePane
          incident={incident.data}
          detections={detections.data ?? []}
          actions={actions.data ?? []}
          processes={processes}
        />
        <Timeline id={id} />
        <Side id={id} actions={actions} />
      </div>
      <NoteDialog id={id} open={dialog === 'note'} close={() => setDialog(null)} />
      <CloseDialog id={id} open={dialog === 'close'} close={() => setDialog(null)} />
    </section>
  )
}
