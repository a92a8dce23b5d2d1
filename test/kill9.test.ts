/**
 * A campaign of `kill -9`: controller and agent die at seeded random moments under load while attacks go on.
 * Short by default; in full, and under other seeds, with CORDON_TEST_LONG=1 and CORDON_TEST_SEED=NUMBER.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import type { DetectionRecord } from '../controller/incidents/incident.ts'
import { type Dropper, startDropper, startLoad } from './testing/attack.ts'
import {
  awaitDelivery,
  balance,
  bufferedEvents,
  readBuffer,
  readMarks,
  storedUpTo,
} from './testing/databases.ts'
import { WAIT } from './testing/observer.ts'
import { createSeeded } from './testing/seeded.ts'
import { type Stage, startStage } from './testing/stage.ts'

const isLong = process.env['CORDON_TEST_LONG'] === '1'
const KILLS = isLong ? 50 : 3
const SEED = Number(process.env['CORDON_TEST_SEED'] ?? 20_261)
/** Of a killed program's next life, so that deaths fall into starts, deliveries and quiet alike. */
const DELAY_MS_MAX = 400
const FILES = ['first.txt', 'second.txt'] as const

let stage: Stage
beforeAll(async () => {
  stage = await startStage()
}, 120_000)
afterAll(() => stage?.[Symbol.asyncDispose]())

/** Drops a file and waits until the agent has the detection on disk: from then on nothing may lose it. */
async function dropAndSee(dropper: Dropper, name: string): Promise<void> {
  const path = await dropper.drop(name)
  await vi.waitFor(
    () => {
      const found = bufferedEvents(stage.folders.agent, 'detection')
      // By its hash and by its content: the second may be committed a moment later.
      expect(found.filter((event) => event['file.path'] === path)).toHaveLength(2)
    },
    { timeout: 30_000, interval: 20 },
  )
}

/** One attack: the same process drops two files; what happens in between is the caller's. */
async function attack(name: string, between: (dropper: Dropper) => Promise<void>): Promise<string> {
  using dropper = startDropper(stage.folders.testRoot, name)
  await dropAndSee(dropper, FILES[0])
  await between(dropper)
  await dropAndSee(dropper, FILES[1])
  return dropper.folder
}

/** What an attack became, without what differs between any two attacks. */
function shapeOf(detections: readonly DetectionRecord[]) {
  return {
    incidents: new Set(detections.map(({ incidentId }) => incidentId)).size,
    processes: new Set(detections.map(({ entityId }) => entityId)).size,
    detections: detections
      .map(({ filePath, ruleName, severity, processName, repeats }) => ({
        file: filePath?.split('/').at(-1),
        ruleName,
        severity,
        processName,
        repeats,
      }))
      .toSorted((a, b) => `${a.file} ${a.ruleName}`.localeCompare(`${b.file} ${b.ruleName}`)),
  }
}

const shapeIn = async (folder: string) => shapeOf(await stage.observer.detectionsBelow(folder))

test(
  `${KILLS} random deaths lose nothing that was acknowledged and change no incident (seed ${SEED})`,
  async () => {
    const random = createSeeded(SEED)
    const { agent, controller } = stage.folders
    const calm = await attack('calm', async () => undefined)
    const stormy: string[] = []
    {
      await using _load = startLoad(stage.folder, 100)
      for (let round = 0; round < KILLS; round += 1) {
        const victim = random.below(2) === 0 ? 'agent' : 'controller'
        const delayMs = random.below(DELAY_MS_MAX)
        const folder = await attack(`storm-${round}`, async (dropper) => {
          await sleep(delayMs)
          if (victim === 'agent') {
            await stage.killAgent()
            await stage.startAgent()
            return
          }
          await stage.killController()
          const before = readMarks(agent)
          const onDisk = storedUpTo(controller, stage.agentId, before.streamId)
          // Half of the times the attack goes on while nobody listens.
          if (random.below(2) === 0) await dropAndSee(dropper, FILES[1])
          await stage.startController()
          for (const [eventClass, last] of before.acknowledged.entries()) {
            expect(onDisk[eventClass]).toBeGreaterThanOrEqual(last)
          }
        })
        stormy.push(folder)
      }
    }
    await awaitDelivery(agent, controller, stage.agentId)
    const made = readBuffer(agent)
    const stored = await awaitDelivery(agent, controller, stage.agentId)
    expect(balance(made, stored)).toMatchObject({ missing: [], storedTwice: [], different: [] })
    expect(stored.length).toBeGreaterThan(KILLS * 50)

    const expected = await shapeIn(calm)
    expect(expected.detections.length).toBeGreaterThanOrEqual(FILES.length)
    for (const folder of stormy) {
      await vi.waitFor(async () => expect(await shapeIn(folder)).toEqual(expected), WAIT)
    }
  },
  isLong ? 30 * 60_000 : 120_000,
)
