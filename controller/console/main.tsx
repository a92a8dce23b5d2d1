/** The console: what operators see in a browser. It speaks to the controller through the public API alone. */
import './style/fonts.css'
import './style/tokens.css'
import './style/base.css'
import './style/frame.css'
import './style/lists.css'
import './style/incident.css'
import './style/side.css'
import './style/dialogs.css'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { App } from './app.tsx'
import { applyTheme } from './frame/theme.ts'

applyTheme()
const place = document.getElementById('app')
if (place === null) throw new Error('the page has no place for the console')
createRoot(place).render(
  <StrictMode>
    <App />
  </StrictMode>,
)
