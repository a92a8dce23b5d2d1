/** The console in a browser on a real controller and agent: what happens shows by itself, what is sent arrives. */
import { randomBytes } from 'node:crypto'
import type { Browser, Locator } from 'playwright-core'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { Actions, Timeline } from '../controller/api/schemas.ts'
import { type Action, ActionPlan } from '../controller/dispatch/action.ts'
import { buildConsole } from '../scripts/build-console.ts'
import { CONTROLLER } from '../scripts/setup/deployment.ts'
import { runProgram } from '../scripts/setup/program.ts'
import { type Dropper, startDropper, startSleeper } from './testing/attack.ts'
import { canBrowse, launchBrowser, openPage, type Watched, whyNot } from './testing/browser.ts'
import { WAIT } from './testing/observer.ts'
import { isRoot, type Stage, startStage } from './testing/stage.ts'

const PASSWORD = randomBytes(18).toString('base64url')
const REASON = 'a test of the console'
const NOTE = 'it came in through <b>the upload form</b>'

let stage: Stage
let browser: Browser
let watched: Watched
let dropper: Dropper
let incidentId: string
let kill: Parameters<Stage['operator']['act']>[0]

beforeAll(async () => {
  if (!canBrowse) return
  await buildConsole()
  browser = await launchBrowser()
  watched = await openPage(browser, { viewport: { width: 1600, height: 1400 } })
  stage = await startStage()
  dropper = startDropper(stage.folders.testRoot, 'console-drops')
  kill = {
    action: 'killProcess',
    args: { tree: false },
    targets: [{ agentId: stage.agentId, target: dropper.target }],
    reason: REASON,
  }
}, 180_000)
afterEach(() => {
  if (canBrowse) expect(watched.errors).toEqual([])
})
afterAll(async () => {
  dropper?.[Symbol.dispose]()
  await browser?.close()
  await stage?.[Symbol.asyncDispose]()
})

const inConsole = (name: string, run: () => Promise<void>) => test.skipIf(!canBrowse)(`${name}${whyNot}`, run)
/** Whose tree it is takes the kernel's sensors to tell. */
const inTree = (name: string, run: () => Promise<void>) =>
  test.skipIf(!canBrowse || !isRoot)(`${name}${whyNot} (kernel sensors take root)`, run)

/** Marks the document: a page that was loaded anew does not have the mark. */
const mark = () => watched.page.evaluate('window.marked = true')
const isStillMarked = () => watched.page.evaluate('window.marked === true')

/** The tree's row of a process of this host. */
function rowOf({ pid, startTicks }: { readonly pid: number; readonly startTicks: number }): Locator {
  return watched.page.locator(
    `[role="row"][id^="process-${stage.agentId.slice(0, 8)}."][id$=".${pid}.${startTicks}"]`,
  )
}

/** What tells that the incident shows. Only the kernel's sensors, which take root, know who wrote the file. */
const shownIncident = (): Locator =>
  isRoot ? rowOf(dropper.target) : watched.page.locator('.y-detection').first()

async function actionOf(plan: ActionPlan): Promise<Action | undefined> {
  const { actions } = await stage.operator.get('/actions', Actions, { incidentId })
  return actions.find(({ id }) => id === plan.actions[0]?.id)
}

async function timelineTexts(): Promise<readonly string[]> {
  const { entries } = await stage.operator.get(`/incidents/${incidentId}/timeline`, Timeline)
  return entries.map(({ summary }) => summary)
}

inConsole('the first administrator signs in through the link, and sees the host connected', async () => {
  const { page } = watched
  const first = await runProgram(CONTROLLER, ['first-sign-in'], stage.controllerEnvironment)
  expect(first).toMatchObject({ code: 0 })
  await page.goto(`${stage.apiUrl}/sign-in#first=${first.stdout.trim()}`)
  await page.getByLabel('Password', { exact: true }).fill(PASSWORD)
  await page.getByLabel('Password again').fill(PASSWORD)
  await page.getByRole('button', { name: 'Begin' }).click()
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Hosts' }).click()
  const host = page.getByRole('row').filter({ has: page.locator(`a[href="/hosts/${stage.agentId}"]`) })
  await host.getByText('Connected').waitFor()
  for (const sensor of stage.sensors) await host.getByText(sensor, { exact: true }).waitFor()
  expect(page.url()).not.toContain('first=')
})

inConsole(
  'an incident shows on the open page without a reload, and opens with process and finding',
  async () => {
    const { page } = watched
    await page.getByRole('link', { name: 'Incidents' }).click()
    await page.getByRole('heading', { name: 'Incidents' }).waitFor()
    await page.getByText('Live', { exact: true }).waitFor()
    await mark()
    const path = await dropper.drop('invoice.txt')
    incidentId = (await stage.observer.detectionOf(path)).incidentId
    await page.locator(`a[href="/incidents/${incidentId}"]`).click()
    await shownIncident().waitFor()
    const writer = isRoot ? `(pid ${dropper.pid})` : ''
    await page.locator('.y-detection', { hasText: writer }).first().waitFor()
    const described = isRoot ? page.getByRole('region', { name: 'Selected process' }) : page.getByRole('main')
    await described.getByText(path).first().waitFor()
    expect(await isStillMarked()).toBe(true)
  },
)

inTree('what else a process started shows when it is asked for', async () => {
  const { page } = watched
  using sleeper = startSleeper(stage.folders.testRoot)
  await vi.waitFor(async () => {
    const stored = await stage.observer.events({ contains: '/sleep' })
    expect(stored.map(({ fields }) => fields['process.pid'])).toContain(sleeper.pid)
  }, WAIT)
  expect(await rowOf(sleeper.target).count()).toBe(0)
  const parent = page.locator('.trow', { has: page.locator(`text="${process.pid}"`) })
  await parent.hover()
  await parent.getByRole('button', { name: 'children' }).click()
  await rowOf(sleeper.target).waitFor()
})

inConsole('an action that waits shows by itself, and is cancelled from the page', async () => {
  const { page } = watched
  const plan = await stage.operator.send('/actions', ActionPlan, { ...kill, incidentId })
  const approval = page.getByRole('region', { name: `Approval needed: Kill of pid ${dropper.pid}` })
  await approval.getByRole('button', { name: 'Cancel' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByRole('textbox').fill(REASON)
  await dialog.getByRole('button', { name: 'Cancel the action' }).click()
  await approval.waitFor({ state: 'detached' })
  await page.locator('.log li.ended', { hasText: 'cancelled' }).waitFor()
  expect(await actionOf(plan)).toMatchObject({ state: 'cancelled' })
})

inConsole('a kill signed elsewhere is followed to its proof, and the incident to contained', async () => {
  const { page } = watched
  await stage.operator.act({ ...kill, incidentId })
  const entry = page.locator('.log li.done', { hasText: `Kill of pid ${dropper.pid}` })
  await entry.getByText('done', { exact: true }).waitFor()
  await entry.getByRole('button', { expanded: false }).click()
  await entry.locator('.proof', { hasText: 'gone=true' }).last().waitFor()
  await page.locator('[aria-current="step"]', { hasText: 'Contained' }).waitFor()
  if (isRoot) await rowOf(dropper.target).getByText('killed').waitFor()
  expect(await isStillMarked()).toBe(true)
})

inConsole('a note and the closing are sent from the page', async () => {
  const { page } = watched
  const dialog = page.getByRole('dialog')
  await page.getByRole('button', { name: 'Add note' }).click()
  await dialog.getByRole('textbox').fill(NOTE)
  await dialog.getByRole('button', { name: 'Add note' }).click()
  await dialog.waitFor({ state: 'detached' })
  await page.locator('.y-note', { hasText: NOTE }).waitFor()
  await page.getByRole('button', { name: 'Close incident' }).click()
  await dialog.getByRole('textbox').fill(REASON)
  await dialog.getByRole('button', { name: 'Close incident' }).click()
  await page.locator('[aria-current="step"]', { hasText: 'Closed' }).waitFor()
  expect(await timelineTexts()).toContain(`admin: ${NOTE}`)
  expect(await stage.observer.incident(incidentId)).toMatchObject({ status: 'closed' })
})

inConsole('after signing out nothing shows, and a link leads through the sign-in to its page', async () => {
  const { page } = watched
  await page.getByRole('button', { name: 'Sign out' }).click()
  await page.getByLabel('Password').waitFor()
  expect(await page.getByText(incidentId).count()).toBe(0)
  await page.goto(`${stage.apiUrl}/incidents/${incidentId}`)
  await page.getByLabel('Name').fill('admin')
  await page.getByLabel('Password').fill(PASSWORD)
  await page.getByRole('button', { name: 'Sign in' }).click()
  await shownIncident().waitFor()
})
