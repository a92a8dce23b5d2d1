/** Sign-in: name and password, or the one-time code with which the first administrator begins. */
import { type FormEvent, useId, useState } from 'react'
import { ApiProblem } from '../api/client.ts'
import { useSignIn } from '../api/queries.ts'
import { Logo } from '../ui/logo.tsx'
import { sentence } from '../ui/states.tsx'

/** In the fragment, which browsers send to nobody: `/sign-in#first=CODE`. */
function codeOfAddress(): string | null {
  return /^#first=([A-Za-z0-9_-]{8,64})$/.exec(window.location.hash)?.[1] ?? null
}

export function SignInPage({ ended }: { readonly ended: boolean }) {
  const [code, setCode] = useState(codeOfAddress)
  return (
    <main className="sign">
      <div className="card">
        <div className="brand">
          <Logo size={26} />
          <h1>Cordon</h1>
        </div>
        {ended ? (
          <output className="note">Your session has ended. Sign in, and you are back where you were.</output>
        ) : null}
        <SignInForm key={code === null ? 'user' : 'first'} code={code} />
        <p className="foot">
          {code === null ? (
            <button type="button" className="lnk" onClick={() => setCode('')}>
              First start? Use the one-time code
            </button>
          ) : (
            <button type="button" className="lnk" onClick={() => setCode(null)}>
              Sign in with a password instead
            </button>
          )}
        </p>
      </div>
    </main>
  )
}

function SignInForm({ code: given }: { readonly code: string | null }) {
  const first = given !== null
  const [code, setCode] = useState(given ?? '')
  const [name, setName] = useState(first ? 'admin' : '')
  const [password, setPassword] = useState('')
  const [again, setAgain] = useState('')
  const signIn = useSignIn()
  const differs = first && again !== '' && again !== password
  const ready = name !== '' && password !== '' && (!first || (again === password && code !== ''))

  const submit = (event: FormEvent) => {
    event.preventDefault()
    if (!ready) return
    signIn.mutate(
      { name, password, code: first ? code : null },
      // The code has had its use; it must not stay in the address.
      { onSuccess: () => (first ? history.replaceState(null, '', '/') : undefined) },
    )
  }
  return (
    <form onSubmit={submit}>
      {first ? (
        <>
          <p className="lead">
            You are the first administrator. The code works once, for an hour; the controller prints it with{' '}
            <code>cordon-controller first-sign-in</code>.
          </p>
          <Field label="One-time code" value={code} change={setCode} mono />
        </>
      ) : null}
      <Field label="Name" value={name} change={setName} complete="username" focus />
      <Field
        label="Password"
        value={password}
        change={setPassword}
        type="password"
        complete={first ? 'new-password' : 'current-password'}
      />
      {first ? (
        <Field
          label="Password again"
          value={again}
          change={setAgain}
          type="password"
          complete="new-password"
          problem={differs ? 'The two passwords differ.' : null}
        />
      ) : null}
      {signIn.isError ? <Refused error={signIn.error} /> : null}
      <button type="submit" className="btn pri wide" disabled={!ready || signIn.isPending}>
        {signIn.isPending ? 'Signing in…' : first ? 'Begin' : 'Sign in'}
      </button>
    </form>
  )
}

function Refused({ error }: { readonly error: Error }) {
  const told =
    error instanceof ApiProblem
      ? `${sentence(error.message)}. ${error.hint}`
      : 'The controller cannot be reached. Is it running?'
  return (
    <p className="problem" role="alert">
      {told.trim()}
    </p>
  )
}

function Field({
  label,
  value,
  change,
  type = 'text',
  complete = 'off',
  focus = false,
  mono = false,
  problem = null,
}: {
  readonly label: string
  readonly value: string
  readonly change: (value: string) => void
  readonly type?: 'text' | 'password'
  readonly complete?: string
  readonly focus?: boolean
  readonly mono?: boolean
  readonly problem?: string | null
}) {
  const id = useId()
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input
        id={id}
        type={type}
        value={value}
        onChange={(event) => change(event.target.value)}
        autoComplete={complete}
        // biome-ignore lint/a11y/noAutofocus: the page holds nothing but this form.
        autoFocus={focus}
        className={mono ? 'mo' : ''}
        maxLength={256}
        spellCheck={false}
        autoCapitalize="none"
        aria-invalid={problem !== null}
        aria-describedby={problem === null ? undefined : `${id}-problem`}
      />
      {problem === null ? null : (
        <span className="problem" id={`${id}-problem`}>
          {problem}
        </span>
      )}
    </div>
  )
}
