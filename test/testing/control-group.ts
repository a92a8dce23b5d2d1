/** A control group of the test's own, in which a booting system makes its groups beside nobody else's. */
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

export interface ControlGroup extends AsyncDisposable {
  /** Starts the program behind it inside the group. */
  readonly launcher: readonly string[]
  readonly folders: readonly string[]
}

/** systemd's own hierarchy of v1 and the unified one beside it; or the one of v2, where there is no other. */
const HYBRID = ['/sys/fs/cgroup/systemd', '/sys/fs/cgroup/unified']
const UNIFIED = '/sys/fs/cgroup'
const REMOVAL_TRIES = 50
const REMOVAL_PAUSE_MS = 100

export function createControlGroup(): ControlGroup {
  const name = `cordon-test-${randomBytes(4).toString('hex')}`
  const hybrid = HYBRID.filter((folder) => existsSync(folder))
  const folders = (hybrid.length > 0 ? hybrid : [UNIFIED]).map((folder) => join(folder, name))
  for (const folder of folders) mkdirSync(folder)
  const enter = folders.map((folder) => `echo $$ > ${folder}/cgroup.procs`).join(' && ')
  return {
    launcher: ['sh', '-c', `${enter} && exec "$@"`, 'launcher'],
    folders,
    async [Symbol.asyncDispose]() {
      for (const folder of folders) await remove(folder)
    },
  }
}

/** A group goes once its groups are gone and its last process is reaped, which takes a moment. */
async function remove(folder: string): Promise<void> {
  for (let tries = 0; existsSync(folder); tries++) {
    try {
      removeTree(folder)
    } catch (error) {
      if (tries === REMOVAL_TRIES) throw error
      await sleep(REMOVAL_PAUSE_MS)
    }
  }
}

function removeTree(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) removeTree(join(folder, entry.name))
  }
  rmdirSync(folder)
}
