/** What stands around the pages: the session decides between sign-in and the frame, the address between pages. */
import { QueryClient, QueryClientProvider, useQueryClient } from '@tanstack/react-query'
import { useEffect, useState } from 'react'
import { Redirect, Route, Switch } from 'wouter'
import { ApiProblem, onSessionEnd } from './api/client.ts'
import { LiveContext, type LiveState, useLiveChanges } from './api/live.ts'
import { SESSION_KEY, useSession } from './api/queries.ts'
import { ErrorBoundary } from './frame/error-boundary.tsx'
import { Frame } from './frame/frame.tsx'
import { HostPage } from './pages/host.tsx'
import { HostsPage } from './pages/hosts.tsx'
import { IncidentPage } from './pages/incident.tsx'
import { IncidentsPage } from './pages/incidents.tsx'
import { SignInPage } from './pages/sign-in.tsx'
import { Empty, Failed } from './ui/states.tsx'
import { ZoneProvider } from './ui/time.tsx'

const ATTEMPTS_MAX = 3

function createQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: {
        // The stream of changes says what is stale.
        staleTime: 30_000,
        // What was refused is refused again; what could not be reached may come back.
        retry: (attempts, error) => !(error instanceof ApiProblem) && attempts < ATTEMPTS_MAX,
      },
    },
  })
}

export function App() {
  const [client] = useState(createQueryClient)
  return (
    <ErrorBoundary>
      <QueryClientProvider client={client}>
        <ZoneProvider>
          <Gate />
        </ZoneProvider>
      </QueryClientProvider>
    </ErrorBoundary>
  )
}

function Gate() {
  const client = useQueryClient()
  const session = useSession()
  const [ended, setEnded] = useState(false)
  useEffect(
    () =>
      onSessionEnd(() => {
        if (client.getQueryData(SESSION_KEY)) setEnded(true)
        client.setQueryData(SESSION_KEY, null)
      }),
    [client],
  )
  const { data } = session
  useEffect(() => {
    if (data) setEnded(false)
  }, [data])
  if (data === undefined) {
    return session.isError ? (
      <Failed error={session.error} retry={() => session.refetch()} />
    ) : (
      <output className="boot">Loading…</output>
    )
  }
  if (data === null) return <SignInPage ended={ended} />
  return <SignedIn />
}

function SignedIn() {
  const live: LiveState = useLiveChanges()
  return (
    <LiveContext value={live}>
      <Frame>
        <ErrorBoundary>
          <Switch>
            <Route path="/">
              <Redirect to="/incidents" replace />
            </Route>
            <Route path="/sign-in">
              <Redirect to="/incidents" replace />
            </Route>
            <Route path="/incidents">
              <IncidentsPage />
            </Route>
            <Route path="/incidents/:id">{({ id }) => <IncidentPage key={id} id={id} />}</Route>
            <Route path="/hosts">
              <HostsPage />
            </Route>
            <Route path="/hosts/:id">{({ id }) => <HostPage key={id} id={id} />}</Route>
            <Route>
              <Empty title="There is no such page" todo="The rail on the left has those that there are." />
            </Route>
          </Switch>
        </ErrorBoundary>
      </Frame>
    </LiveContext>
  )
}
