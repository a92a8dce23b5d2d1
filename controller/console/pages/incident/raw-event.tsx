/** A stored event as it is, to read and to copy. */
import { useRawEvent } from '../../api/queries.ts'
import { CopyButton } from '../../ui/copy.tsx'
import { Dialog } from '../../ui/dialog.tsx'
import { Failed, Loading } from '../../ui/states.tsx'

export type RawReference =
  | { readonly kind: 'event'; readonly cursor: string; readonly title: string }
  | { readonly kind: 'detection'; readonly id: string; readonly title: string }

export function RawEventDialog({
  of,
  close,
}: {
  readonly of: RawReference | null
  readonly close: () => void
}) {
  return (
    <Dialog
      open={of !== null}
      close={close}
      title={of?.title ?? ''}
      description="The event as the host sent it and the controller keeps it."
      className="rawdlg"
    >
      {of === null ? null : <Raw of={of} />}
    </Dialog>
  )
}

function Raw({ of }: { readonly of: RawReference }) {
  const event = useRawEvent(of.kind === 'event' ? { cursor: of.cursor } : { detection: of.id })
  if (event.data === undefined) {
    return event.isError ? (
      <Failed error={event.error} retry={() => event.refetch()} />
    ) : (
      <Loading what="the event" />
    )
  }
  if (event.data === null) {
    return <p className="mut">It is not stored any more: events are dropped after their retention.</p>
  }
  const text = JSON.stringify(event.data.event, null, 2)
  return (
    <>
      <div className="rawhead">
        <span className="mo mut">{event.data.cursor}</span>
        <span className="grow" />
        <CopyButton text={text} label="Copy the event" />
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard. */}
      <pre className="raw mo" tabIndex={0}>
        {text}
      </pre>
    </>
  )
}
