/** What stands where there is nothing yet, nothing at all, or something went wrong: each with what to do. */
import { CircleAlert, RotateCcw } from 'lucide-react'
import type { ReactNode } from 'react'
import { ApiProblem } from '../api/client.ts'

export function Empty({ title, todo }: { readonly title: string; readonly todo: ReactNode }) {
  return (
    <div className="empty">
      <b>{title}</b>
      <p>{todo}</p>
    </div>
  )
}

export function Loading({ what }: { readonly what: string }) {
  return <output className="empty quiet">Loading {what}…</output>
}

export function Failed({ error, retry }: { readonly error: unknown; readonly retry: () => void }) {
  const told = wordsOf(error)
  return (
    <div className="empty failed" role="alert">
      <CircleAlert size={18} />
      <b>{told.title}</b>
      <p>{told.todo}</p>
      <button type="button" className="btn" onClick={retry}>
        <RotateCcw size={13} />
        Try again
      </button>
    </div>
  )
}

function wordsOf(error: unknown): { readonly title: string; readonly todo: string } {
  if (error instanceof ApiProblem) {
    const request = error.requestId === '' ? '' : ` Request ${error.requestId}.`
    return { title: sentence(error.message), todo: `${error.hint}${request}`.trim() }
  }
  if (error instanceof TypeError) {
    return {
      title: 'The controller cannot be reached',
      todo: 'Is it running? This page goes on by itself when it is back.',
    }
  }
  return { title: 'Something went wrong here', todo: error instanceof Error ? error.message : String(error) }
}

/** The API tells its refusals as parts of a sentence. */
export function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}`
}
