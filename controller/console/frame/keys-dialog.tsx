/** The keys, and the switch that turns the single ones off (WCAG 2.2, 2.1.4). */
import { useState } from 'react'
import { Dialog } from '../ui/dialog.tsx'
import { shortcutsAreOn, switchShortcuts } from './keys.ts'
import { PAGES } from './pages.ts'

const KEYS: readonly (readonly [string, string])[] = [
  ['Ctrl K', 'Search hosts, incidents and pages'],
  ...PAGES.map(({ key, name }) => [key, `Go to ${name}`] as const),
  ['/', 'Search on this page'],
  ['j  k', 'Next and previous row'],
  ['↵', 'Open the row'],
  ['→  ←', 'Open and close a process of the tree'],
  ['N', 'Add a note to the incident'],
  ['E', 'Close the incident'],
  ['Shift Z', 'Switch every time between UTC and local'],
  ['?', 'These keys'],
]

export function KeysDialog({ open, close }: { readonly open: boolean; readonly close: () => void }) {
  const [on, setOn] = useState(shortcutsAreOn)
  const change = (next: boolean) => {
    switchShortcuts(next)
    setOn(next)
  }
  return (
    <Dialog open={open} close={close} title="Keys" description="Everything works with the keyboard alone.">
      <dl className="keys">
        {KEYS.map(([key, does]) => (
          <div key={key}>
            <dt>
              {key.split(/ +/).map((part) => (
                <kbd key={part}>{part}</kbd>
              ))}
            </dt>
            <dd>{does}</dd>
          </div>
        ))}
      </dl>
      <div className="df">
        <label className="switch">
          <input type="checkbox" checked={on} onChange={(event) => change(event.target.checked)} />
          Single keys work as shortcuts
        </label>
        <span className="grow" />
        <button type="button" className="btn" onClick={close}>
          Close
        </button>
      </div>
    </Dialog>
  )
}
