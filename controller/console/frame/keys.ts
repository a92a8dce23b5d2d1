/** Single keys as shortcuts: never while someone types, never with a modifier, and not at all when switched off. */
import { useEffect, useRef } from 'react'

const STORED_AS = 'cordon.shortcuts'
/** How long the second key of a pair is waited for. */
const PAIR_MS = 1_200

export function shortcutsAreOn(): boolean {
  return localStorage.getItem(STORED_AS) !== 'off'
}

export function switchShortcuts(on: boolean): void {
  localStorage.setItem(STORED_AS, on ? 'on' : 'off')
}

export type Shortcuts = Readonly<Record<string, (event: KeyboardEvent) => void>>

/** Names are keys as `KeyboardEvent.key` has them, or pairs such as `g i`. */
export function useShortcuts(shortcuts: Shortcuts): void {
  const latest = useRef(shortcuts)
  useEffect(() => {
    latest.current = shortcuts
  })
  useEffect(() => {
    let first: { readonly key: string; readonly atMs: number } | null = null
    const onKey = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return
      if (!shortcutsAreOn() || isTyping(event.target)) return
      const pair = first !== null && event.timeStamp - first.atMs < PAIR_MS ? `${first.key} ${event.key}` : ''
      const found = latest.current[pair] ?? latest.current[event.key]
      first = { key: event.key, atMs: event.timeStamp }
      if (found === undefined) return
      event.preventDefault()
      first = null
      found(event)
    }
    document.addEventListener('keydown', onKey)
    return () => document.removeEventListener('keydown', onKey)
  }, [])
}

function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false
  return target.matches('input, textarea, select') || target.closest('[role="dialog"]') !== null
}
