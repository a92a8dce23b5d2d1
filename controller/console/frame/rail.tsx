/** The rail on the left: the pages that exist, the theme, the keys, and the way out. */
import { Keyboard, LogOut, Moon, Sun } from 'lucide-react'
import { useState } from 'react'
import { Link, useLocation } from 'wouter'
import { useSignOut } from '../api/queries.ts'
import { Logo } from '../ui/logo.tsx'
import { PAGES } from './pages.ts'
import { chooseTheme, currentTheme } from './theme.ts'

export function Rail({ showKeys }: { readonly showKeys: () => void }) {
  const [location] = useLocation()
  const [theme, setTheme] = useState(currentTheme)
  const signOut = useSignOut()
  const other = theme === 'dark' ? 'light' : 'dark'
  const switchTheme = () => {
    chooseTheme(other)
    setTheme(other)
  }
  return (
    <nav className="rail" aria-label="Main">
      <div className="logo">
        <Logo />
      </div>
      {PAGES.map(({ name, path, key, icon: Icon }) => {
        const isHere = location.startsWith(path)
        return (
          <Link
            key={path}
            href={path}
            className={isHere ? 'on' : ''}
            aria-current={isHere ? 'page' : undefined}
            title={`${name} (${key})`}
          >
            <Icon size={18} strokeWidth={1.6} />
            <span>{name}</span>
          </Link>
        )
      })}
      <div className="grow" />
      <button type="button" onClick={switchTheme} title={`Switch to the ${other} theme`}>
        {theme === 'dark' ? <Sun size={18} strokeWidth={1.6} /> : <Moon size={18} strokeWidth={1.6} />}
        <span>{other === 'dark' ? 'Dark' : 'Light'}</span>
      </button>
      <button type="button" onClick={showKeys} title="Keyboard shortcuts (?)">
        <Keyboard size={18} strokeWidth={1.6} />
        <span>Keys</span>
      </button>
      <button type="button" onClick={() => signOut.mutate()} disabled={signOut.isPending} title="Sign out">
        <LogOut size={18} strokeWidth={1.6} />
        <span>Sign out</span>
      </button>
    </nav>
  )
}
