/** The rules that should be in force, compared with what the kernel has: devices come and go, and so may rules. */
import type { Firewall, FirewallResult, InForce } from './firewall.ts'
import type { IsolationRecord } from './record.ts'

const LOOK_EVERY_MS = 5_000

export interface KeptRules {
  put(record: Pick<IsolationRecord, 'controllers' | 'devices'>): Promise<FirewallResult<InForce>>
  /** Why the rules have to be put in force again; null when they are. `now`: however lately they were looked at. */
  need(now: boolean): Promise<string | null>
  /** Of the rules that were put in force; null: there should be none, or they could not be put there. */
  digest(): string | null
  /** None should be in force any more. */
  forget(): void
}

export function createKeptRules(options: {
  readonly firewall: Firewall
  readonly tampered: (reason: string) => void
  readonly lookEveryMs?: number
}): KeptRules {
  const { firewall } = options
  const lookEveryMs = options.lookEveryMs ?? LOOK_EVERY_MS
  let digest: string | null = null
  let devices = ''
  let looked = Number.NEGATIVE_INFINITY
  const present = () => firewall.devices().join()

  return {
    digest: () => digest,
    forget() {
      digest = null
    },
    async put(record) {
      const applied = await firewall.apply(record.controllers, record.devices)
      looked = performance.now()
      // After a failure too: it is tried again with the next look, not at once for ever.
      devices = applied.ok ? applied.devices.join() : present()
      digest = applied.ok ? applied.digest : null
      return applied
    },
    async need(now) {
      if (present() !== devices) return 'a new device is not cut off'
      if (!now && performance.now() - looked < lookEveryMs) return null
      looked = performance.now()
      const found = await firewall.look()
      if (!found.ok) return `the rules cannot be looked at: ${found.reason}`
      if (found.digest !== null && found.digest === digest) return null
      // A device that goes changes the rules, too.
      if (digest !== null && present() === devices) {
        options.tampered('the rules of isolation were changed by somebody else; they are put back')
      }
      return 'the rules of isolation are not in force'
    },
  }
}
