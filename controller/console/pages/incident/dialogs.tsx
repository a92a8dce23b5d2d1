/** What is written into an incident: notes, and the reason for closing it. */

import { actionInWords } from '../../../dispatch/action-words.ts'
import { useCancel, useClose, useNote } from '../../api/queries.ts'
import type { Action } from '../../api/types.ts'
import { Ask } from '../../ui/ask.tsx'
import { shellWord } from '../../ui/shell-word.ts'

const NOTE_CHARACTERS_MAX = 2_048
const REASON_CHARACTERS_MAX = 1_024

interface Opening {
  readonly open: boolean
  readonly close: () => void
}

export function NoteDialog({ id, ...opening }: Opening & { readonly id: string }) {
  const note = useNote(id)
  return (
    <Ask
      {...opening}
      send={note.mutateAsync}
      asking={{
        title: `Note on ${id}`,
        description: 'It stands in the timeline and the audit log under your name, and stays.',
        label: 'Note',
        button: 'Add note',
        command: (text) => `cordon incident note ${id} ${shellWord(text)}`,
        charactersMax: NOTE_CHARACTERS_MAX,
      }}
    />
  )
}

export function CloseDialog({ id, ...opening }: Opening & { readonly id: string }) {
  const close = useClose(id)
  return (
    <Ask
      {...opening}
      send={close.mutateAsync}
      asking={{
        title: `Close ${id}`,
        description: 'Nothing on the hosts changes. A new detection that belongs to it opens it again.',
        label: 'Reason, for the audit log',
        button: 'Close incident',
        command: (text) => `cordon incident close ${id} --reason ${shellWord(text)}`,
        charactersMax: REASON_CHARACTERS_MAX,
      }}
    />
  )
}

export function CancelDialog({ action, close }: { readonly action: Action; readonly close: () => void }) {
  const cancel = useCancel()
  return (
    <Ask
      open
      close={close}
      send={(reason) => cancel.mutateAsync({ id: action.id, reason })}
      asking={{
        title: `Cancel: ${actionInWords(action)} on ${action.hostName}`,
        description: 'What has not been applied yet will not be. It can be asked for again.',
        label: 'Reason, for the audit log',
        button: 'Cancel the action',
        dangerous: true,
        command: (text) => `cordon action cancel ${action.id.slice(0, 12)} --reason ${shellWord(text)}`,
        charactersMax: REASON_CHARACTERS_MAX,
      }}
    />
  )
}
