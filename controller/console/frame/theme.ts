/** Dark or light: as the system has it, until someone chooses. */

const STORED_AS = 'cordon.theme'

export type Theme = 'dark' | 'light'

export function currentTheme(): Theme {
  const stored = localStorage.getItem(STORED_AS)
  if (stored === 'dark' || stored === 'light') return stored
  return matchMedia('(prefers-color-scheme: light)').matches ? 'light' : 'dark'
}

export function applyTheme(): void {
  document.documentElement.dataset['theme'] = currentTheme()
}

export function chooseTheme(theme: Theme): void {
  localStorage.setItem(STORED_AS, theme)
  applyTheme()
}
