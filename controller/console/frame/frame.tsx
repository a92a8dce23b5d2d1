/** The frame around the pages: rail, top bar, palette, keys. */
import { type ReactNode, useMemo, useState } from 'react'
import { useZone } from '../ui/time.tsx'
import { useGo } from './address.ts'
import { useShortcuts } from './keys.ts'
import { KeysDialog } from './keys-dialog.tsx'
import { PAGES } from './pages.ts'
import { Palette } from './palette.tsx'
import { Rail } from './rail.tsx'
import { TopBar } from './top-bar.tsx'

export function Frame({ children }: { readonly children: ReactNode }) {
  const go = useGo()
  const { toggle } = useZone()
  const [paletteIsOpen, openPalette] = useState(false)
  const [keysAreOpen, openKeys] = useState(false)
  const shortcuts = useMemo(
    () => ({
      ...Object.fromEntries(PAGES.map(({ key, path }) => [key, () => go(path)])),
      '/': () => {
        const search = document.querySelector<HTMLElement>('[data-search]')
        if (search) search.focus()
        else openPalette(true)
      },
      '?': () => openKeys(true),
      Z: toggle,
    }),
    [go, toggle],
  )
  useShortcuts(shortcuts)
  return (
    <div className="app">
      <a className="skip" href="#page">
        Skip to the page
      </a>
      <Rail showKeys={() => openKeys(true)} />
      <div className="main">
        <TopBar openPalette={() => openPalette(true)} />
        <main id="page" tabIndex={-1}>
          {children}
        </main>
      </div>
      <Palette open={paletteIsOpen} setOpen={openPalette} />
      <KeysDialog open={keysAreOpen} close={() => openKeys(false)} />
    </div>
  )
}
