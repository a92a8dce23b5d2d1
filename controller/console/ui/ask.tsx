/** A question that takes a text: a note, or the reason for what cannot be undone. Shows the same as a command. */
import { type FormEvent, useId, useState } from 'react'
import { CommandLine } from './copy.tsx'
import { Dialog } from './dialog.tsx'
import { sentence } from './states.tsx'

export interface Asking {
  readonly title: string
  readonly description: string
  readonly label: string
  readonly button: string
  readonly dangerous?: boolean
  /** The same on the command line; the text goes where it is named. */
  readonly command: (text: string) => string
  readonly charactersMax: number
}

export function Ask({
  asking,
  open,
  close,
  send,
}: {
  readonly asking: Asking
  readonly open: boolean
  readonly close: () => void
  readonly send: (text: string) => Promise<unknown>
}) {
  return (
    <Dialog open={open} close={close} title={asking.title} description={asking.description}>
      <AskForm asking={asking} close={close} send={send} />
    </Dialog>
  )
}

function AskForm({
  asking,
  close,
  send,
}: {
  readonly asking: Asking
  readonly close: () => void
  readonly send: (text: string) => Promise<unknown>
}) {
  const id = useId()
  const [text, setText] = useState('')
  const [busy, setBusy] = useState(false)
  const [problem, setProblem] = useState<string | null>(null)
  const ready = text.trim() !== '' && !busy

  const submit = async (event: FormEvent) => {
    event.preventDefault()
    if (!ready) return
    setBusy(true)
    setProblem(null)
    try {
      await send(text.trim())
      close()
    } catch (error) {
      setProblem(error instanceof Error ? sentence(error.message) : String(error))
      setBusy(false)
    }
  }
  return (
    <form onSubmit={submit}>
      <label htmlFor={id}>{asking.label}</label>
      <textarea
        id={id}
        rows={3}
        maxLength={asking.charactersMax}
        value={text}
        onChange={(event) => setText(event.target.value)}
        onKeyDown={(event) => {
          if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) submit(event)
        }}
      />
      {problem === null ? null : (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
      <CommandLine command={asking.command(text.trim() === '' ? 'WHY' : text.trim())} />
      <div className="df">
        <span className="grow" />
        <button type="button" className="btn gh" onClick={close}>
          Back <kbd>Esc</kbd>
        </button>
        <button type="submit" className={`btn ${asking.dangerous ? 'dan' : 'pri'}`} disabled={!ready}>
          {asking.button} <kbd>Ctrl ↵</kbd>
        </button>
      </div>
    </form>
  )
}
