/** What the controller's store holds of a storm, read until nothing more comes. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { EventAction } from '../../../shared/events/event.ts'
import type { Operator } from '../../setup/operator.ts'
import { readEvents } from '../read-events.ts'
import { type Account, accountFor, type Counts, type Expected, type Fields } from './account.ts'
import type { Made, Storm } from './generator.ts'

const LOOK_PAUSE_MS = 3_000
/** Unchanged this often in a row: nothing more comes. A buffer that is behind sends every second. */
const LOOKS_UNCHANGED = 4
const LOOKS_MAX = 60

/** What a storm that made `count` of its kind did, in the units of account.ts. */
function expectedOf(kind: Storm['kind'], count: number): Expected {
  switch (kind) {
    case 'processes':
      return { made: { exec: count, exit: count } }
    case 'connections':
      return {
        made: { connection: count, 'connection-accepted': count, 'connection-closed': 2 * count },
      }
    case 'files-apart':
      return { made: { 'file-created': count, 'file-modified': count, 'file-deleted': count } }
    case 'files':
      return {
        made: { 'file-created': count, 'file-modified': count, 'file-deleted': count },
        mergeable: 'file-modified',
      }
  }
}

export interface ReadBackOptions {
  readonly operator: Operator
  readonly kind: Storm['kind']
  readonly made: Made
  /** What a storm of processes started. */
  readonly executable: string
  /** Wall clock: nothing of the storm is older. */
  readonly fromMs: number
}

export async function readBack(options: ReadBackOptions): Promise<Account> {
  const expected = expectedOf(options.kind, options.made.made)
  let account = await look(options, expected)
  let unchanged = 0
  for (let looks = 1; looks < LOOKS_MAX && unchanged < LOOKS_UNCHANGED; looks += 1) {
    await sleep(LOOK_PAUSE_MS)
    const next = await look(options, expected)
    unchanged = next.seen === account.seen && next.gap === account.gap ? unchanged + 1 : 0
    account = next
    // All is there: once more, for what is told twice.
    if (account.unaccounted === 0 && unchanged > 0) break
  }
  return account
}

async function look(options: ReadBackOptions, expected: Expected): Promise<Account> {
  const { operator, made, fromMs } = options
  const pids = new Set(made.pids)
  const isOfStorm = (pid: unknown) => typeof pid === 'number' && pids.has(pid)
  const read = async (query: { readonly action: EventAction; readonly contains?: string }) =>
    (await readEvents(operator, { ...query, fromMs })).map(({ event }): Fields => ({ ...event }))
  const seen: Fields[] = []
  if (options.kind === 'processes') seen.push(...(await readProcesses(read, options.executable)))
  else
    for (const action of Object.keys(expected.made as Counts) as EventAction[])
      seen.push(...(await read({ action })).filter((event) => isOfStorm(event['process.pid'])))
  return accountFor(expected, isOfStorm, seen, await read({ action: 'gap' }))
}

async function readProcesses(
  read: (query: { readonly action: EventAction; readonly contains?: string }) => Promise<Fields[]>,
  executable: string,
): Promise<Fields[]> {
  const execs = (await read({ action: 'exec', contains: executable })).filter(
    (event) => event['process.executable'] === executable,
  )
  const entities = new Set(execs.map((event) => event['process.entity_id']))
  const exits = (await read({ action: 'exit' })).filter((event) => entities.has(event['process.entity_id']))
  return [...execs, ...exits]
}
