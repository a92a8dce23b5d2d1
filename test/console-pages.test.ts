/** The console in a browser over a fleet in memory: accessible, small, and unmoved by hostile names. */
import { gzipSync } from 'node:zlib'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { consoleFiles } from '../controller/api/static-files.ts'
import { AGENT_ID } from '../controller/api/testing/fixtures.ts'
import {
  type MemoryController,
  PASSWORD,
  startMemoryController,
} from '../controller/api/testing/memory-controller.ts'
import { buildConsole } from '../scripts/build-console.ts'
import {
  canBrowse,
  elementsIn,
  expectAccessible,
  launchBrowser,
  openPage,
  whyNot,
} from './testing/browser.ts'
import { HOSTILE, QUIET_PROCESSES, settle } from './testing/console-world.ts'

const KIBIBYTE = 1024
const ELEMENTS_MAX = 2_500

let controller: MemoryController
let browser: Browser
beforeAll(async () => {
  await buildConsole()
  controller = await startMemoryController({ console: consoleFiles() })
  settle(controller)
  await controller.operators.createUser('ada', 'responder', PASSWORD)
  if (canBrowse) browser = await launchBrowser()
}, 180_000)
afterAll(async () => {
  await browser?.close()
  await controller?.[Symbol.asyncDispose]()
})

async function signIn(page: Page): Promise<void> {
  await page.getByLabel('Name').fill('ada')
  await page.getByLabel('Password').fill(PASSWORD)
  await page.getByRole('button', { name: 'Sign in' }).click()
  await page.getByRole('navigation', { name: 'Main' }).waitFor()
}

test('the first load is small', () => {
  const assets = [...(consoleFiles()?.assets ?? [])]
  const bytes = (ending: string) =>
    assets
      .filter(([name]) => name.endsWith(ending))
      .reduce(
        (sum, [, file]) => sum + (ending === '.woff2' ? file.bytes.length : gzipSync(file.bytes).length),
        0,
      )
  for (const ending of ['.js', '.css', '.woff2']) expect(bytes(ending)).toBeGreaterThan(1_000)
  expect(bytes('.js')).toBeLessThanOrEqual(200 * KIBIBYTE)
  expect(bytes('.css')).toBeLessThanOrEqual(10 * KIBIBYTE)
  expect(bytes('.woff2')).toBeLessThanOrEqual(90 * KIBIBYTE)
})

test.skipIf(!canBrowse).each(['dark', 'light'] as const)(
  `every page is accessible, the %s theme too${whyNot}`,
  async (colorScheme) => {
    const { page } = await openPage(browser, { colorScheme, bypassCSP: true })
    await page.goto(`${controller.url}/incidents`)
    await page.getByLabel('Name').waitFor()
    await expectAccessible(page, 'sign-in')
    await signIn(page)
    for (const [path, shown] of [
      ['/incidents', '.vr'],
      ['/incidents/INC-7', '.trow'],
      ['/incidents/INC-4', '.empty'],
      ['/hosts', '.vr'],
      [`/hosts/${AGENT_ID}`, '.plain'],
    ] as const) {
      await page.goto(`${controller.url}${path}`)
      await page.locator(shown).first().waitFor()
      await expectAccessible(page, path)
    }
    await page.keyboard.press('Control+k')
    await page.locator('[cmdk-item]').first().waitFor()
    await expectAccessible(page, 'palette')
    await page.context().close()
  },
  180_000,
)

test.skipIf(!canBrowse)(
  `hundreds of processes stay few elements, and hostile names are text${whyNot}`,
  async () => {
    const { page, errors } = await openPage(browser)
    await page.goto(`${controller.url}/incidents/INC-7?scope=all&entries=all`)
    await signIn(page)
    await page.locator('.trow').first().waitFor()
    await page.locator('.ev li').first().waitFor()
    expect(QUIET_PROCESSES).toBeGreaterThan(500)
    expect(await page.locator('[role="treegrid"]').getAttribute('aria-rowcount')).not.toBe('1')
    expect(await elementsIn(page)).toBeLessThanOrEqual(ELEMENTS_MAX)
    await page.goto(`${controller.url}/hosts`)
    await page.getByText(HOSTILE, { exact: true }).first().waitFor()
    await page.goto(`${controller.url}/incidents`)
    await page.getByText(`${HOSTILE} wrote a test file`).waitFor()
    expect(await page.evaluate('[window.owned, document.images.length]')).toEqual([undefined, 0])
    expect(errors).toEqual([])
    await page.context().close()
  },
)
