/** A controller whose disk is full: nothing that was acknowledged is lost, no agent drops anything, and it recovers. */
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { Health, HostAnswer } from '../controller/api/schemas.ts'
import { startDropper } from './testing/attack.ts'
import { awaitDelivery, balance, bufferedEvents, readBuffer, storedUpTo } from './testing/databases.ts'
import { WAIT } from './testing/observer.ts'
import { isRoot, type Stage, startStage } from './testing/stage.ts'

const LONG_WAIT = { timeout: 60_000, interval: 200 }

/** Puts the controller's folder on a disk of its own, which only this test fills. */
function mountSmallDisk(folder: string): Disposable {
  const aside = `${folder}.aside`
  renameSync(folder, aside)
  execFileSync('mkdir', ['-m', '700', folder])
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=48m,mode=700', 'tmpfs', folder])
  cpSync(aside, folder, { recursive: true, preserveTimestamps: true })
  rmSync(aside, { recursive: true })
  return { [Symbol.dispose]: () => void spawnSync('umount', ['-l', folder]) }
}

/** To the last byte, also what a process that runs gave back meanwhile. */
function fillDisk(file: string): void {
  for (let size = 1024 ** 2; size >= 1; size = Math.floor(size / 4)) {
    try {
      for (;;) writeFileSync(file, Buffer.alloc(size), { flag: 'a' })
    } catch {
      // Smaller pieces until not a byte is left.
    }
  }
}

async function expectNothingMissing({ folders, agentId }: Stage): Promise<void> {
  await awaitDelivery(folders.agent, folders.controller, agentId)
  const made = readBuffer(folders.agent)
  const stored = await awaitDelivery(folders.agent, folders.controller, agentId)
  expect(balance(made, stored)).toMatchObject({ missing: [], storedTwice: [], different: [] })
}

test.skipIf(!isRoot)(
  'on a full disk the controller answers and says so, and takes everything once there is room (mounting takes root)',
  async () => {
    await using stage = await startStage()
    const { folders, operator, agentId } = stage
    await stage.stopController()
    using _disk = mountSmallDisk(folders.controller)
    await stage.startController()
    await awaitDelivery(folders.agent, folders.controller, agentId)
    const health = () => operator.get('/health', Health)
    expect(await health()).toEqual({ status: 'ok', problems: [] })
    const filler = join(folders.controller, 'filler')
    using dropper = startDropper(folders.testRoot, 'attack')

    fillDisk(filler)
    let drops = 0
    await vi.waitFor(async () => {
      fillDisk(filler)
      // Something to store, at each look.
      await dropper.drop(`while-full-${drops++}.txt`)
      const { status, problems } = await health()
      expect(status).toBe('failing')
      expect(problems).toContain('events: the disk is full')
    }, LONG_WAIT)
    const { streamId } = readBuffer(folders.agent)
    const onDisk = storedUpTo(folders.controller, agentId, streamId)
    // More refusals than would set a batch aside, were they the batch's fault.
    const made = () => readBuffer(folders.agent).made
    const before = made()
    await vi.waitFor(async () => {
      fillDisk(filler)
      await dropper.drop(`still-full-${drops++}.txt`)
      expect(made()[1]).toBeGreaterThan((before[1] ?? 0) + 8)
    }, LONG_WAIT)
    expect((await operator.get(`/hosts/${agentId}`, HostAnswer)).agentId).toBe(agentId)
    expect(stage.controller().running()).toBe(true)
    expect(storedUpTo(folders.controller, agentId, streamId)).toEqual(onDisk)

    unlinkSync(filler)
    await vi.waitFor(async () => expect(await health()).toEqual({ status: 'ok', problems: [] }), LONG_WAIT)
    await expectNothingMissing(stage)
    const gaps = bufferedEvents(folders.agent, 'gap').map((gap) => gap['event.reason'])
    expect(gaps.filter((reason) => /refused/.test(String(reason)))).toEqual([])
    await vi.waitFor(
      async () => expect(await stage.observer.detectionsBelow(dropper.folder)).not.toEqual([]),
      WAIT,
    )
    await stage.agent().stop()
    await stage.stopController()
  },
  300_000,
)
