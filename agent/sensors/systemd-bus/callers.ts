/**
 * The processes behind the names of a bus. They are asked for when a connection comes, for many are gone a moment
 * after their call. The bus never gives one name twice, so an answer holds for good.
 */
import { BUS, type BusConnection } from './bus-connection.ts'

export interface Callers {
  /** Asks once; null: the bus does not know, or no longer. */
  pidOf(uniqueName: string): Promise<number | null>
  forget(uniqueName: string): void
}

const NAMES_MAX = 4_096
/** A name that is gone can still be asked for: its last call may be told after that. */
const GONE_MAX = 512

export function createCallers(connection: Pick<BusConnection, 'call'>): Callers {
  const pids = new Map<string, Promise<number | null>>()
  const gone: string[] = []

  async function ask(uniqueName: string): Promise<number | null> {
    const reply = await connection.call({
      ...BUS,
      interface: 'org.freedesktop.DBus',
      member: 'GetConnectionUnixProcessID',
      signature: 's',
      body: [uniqueName],
    })
    const pid = reply.ok ? reply.body[0] : undefined
    return typeof pid === 'number' && pid > 0 ? pid : null
  }

  return {
    pidOf(uniqueName) {
      const known = pids.get(uniqueName)
      if (known !== undefined) return known
      const oldest = pids.keys().next().value
      if (pids.size >= NAMES_MAX && oldest !== undefined) pids.delete(oldest)
      const asked = ask(uniqueName)
      pids.set(uniqueName, asked)
      return asked
    },
    forget(uniqueName) {
      gone.push(uniqueName)
      if (gone.length > GONE_MAX) pids.delete(gone.shift() ?? '')
    },
  }
}
