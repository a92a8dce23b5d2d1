/** Debian's Chromium for tests of the console: what it logs as an error, and what it could not load, is kept. */
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { expect } from 'vitest'

const EXECUTABLE = '/usr/bin/chromium'
const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js')
const AXE_RULES = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']

const isRoot = process.getuid?.() === 0
/** As root a browser is a must: its tests fail when there is none. */
export const canBrowse = isRoot || existsSync(EXECUTABLE)
/** Goes behind the names of tests that an ordinary user may not be able to run. */
export const whyNot = canBrowse ? '' : ` (skipped: there is no ${EXECUTABLE}; apt-get install chromium)`

export function launchBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath: EXECUTABLE,
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--disable-dev-shm-usage',
      '--force-color-profile=srgb',
      '--font-render-hinting=none',
    ],
  })
}

export interface Watched {
  readonly page: Page
  /** Errors so far, but for the answer that says that nobody is signed in yet. */
  readonly errors: readonly string[]
}

export async function openPage(browser: Browser, options: BrowserContextOptions = {}): Promise<Watched> {
  const context = await browser.newContext({
    viewport: { width: 1600, height: 1000 },
    reducedMotion: 'reduce',
    timezoneId: 'UTC',
    colorScheme: 'dark',
    ...options,
  })
  const page = await context.newPage()
  const errors: string[] = []
  page.on('pageerror', (error) => errors.push(error.message))
  page.on('console', (message) => {
    if (message.type() !== 'error') return
    const isFirstAsk = message.text().includes('401') && message.location().url.endsWith('/auth/session')
    if (!isFirstAsk) errors.push(`${message.text()} (${message.location().url})`)
  })
  return { page, errors }
}

/** Violations of WCAG 2.2 AA on the page as it is, as one line each. Needs a context with `bypassCSP`. */
async function violationsOf(page: Page): Promise<readonly string[]> {
  await page.evaluate(readFileSync(AXE, 'utf8'))
  return page.evaluate(
    `axe.run(document, { runOnly: ${JSON.stringify(AXE_RULES)} }).then(({ violations }) =>
      violations.map(({ id, nodes }) => id + ' x' + nodes.length + ': ' + nodes.slice(0, 3).map((n) => n.target.join(' ') + ' ' + n.failureSummary.split('\\n').slice(1, 2)).join('; ')))`,
  )
}

export async function expectAccessible(page: Page, where: string): Promise<void> {
  expect(await violationsOf(page), where).toEqual([])
}

export async function elementsIn(page: Page): Promise<number> {
  return page.evaluate('document.querySelectorAll("*").length')
}
