/** View, query and selection stand in the address: what is seen can be sent to someone, and Back goes back. */
import { useCallback } from 'react'
import { useLocation, useSearchParams } from 'wouter'

export interface Address {
  /** Empty when it is not set. */
  get(name: string): string
  /** An empty text takes the name away. `replace` for what changes too often for the history. */
  set(values: Readonly<Record<string, string>>, replace?: boolean): void
}

export function useAddress(): Address {
  const [parameters, setParameters] = useSearchParams()
  const get = useCallback((name: string) => parameters.get(name) ?? '', [parameters])
  const set = useCallback(
    (values: Readonly<Record<string, string>>, replace = true) => {
      setParameters(
        (before) => {
          const next = new URLSearchParams(before)
          for (const [name, value] of Object.entries(values)) {
            if (value === '') next.delete(name)
            else next.set(name, value)
          }
          return next
        },
        { replace },
      )
    },
    [setParameters],
  )
  return { get, set }
}

export function useGo(): (path: string) => void {
  const [, go] = useLocation()
  return go
}
