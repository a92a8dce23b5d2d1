/**
 * Sign-in attempts per name and per address. An attempt is counted when it begins, not when it fails, so a
 * hundred at once cannot all slip in before the first has failed. Both tables are bounded; a full one never
 * forgets a live count (else a flood of made-up names would wash a real count out), new keys then share one.
 */
import { isIPv6 } from 'node:net'

export interface AttemptLimits {
  readonly perNameMax: number
  readonly perAddressMax: number
  readonly windowMs: number
  readonly keysMax: number
}

export const ATTEMPT_LIMITS: AttemptLimits = {
  perNameMax: 10,
  perAddressMax: 30,
  windowMs: 15 * 60_000,
  keysMax: 10_000,
}

type Attempt =
  | {
      readonly ok: true
      /** The attempt was right: it is not counted, and the name's failures are forgotten. */
      succeeded(): void
    }
  | { readonly ok: false; readonly retryAfterMs: number }

export interface Attempts {
  begin(name: string, address: string): Attempt
}

export function createAttempts(clock: () => number, limits: AttemptLimits = ATTEMPT_LIMITS): Attempts {
  const names = createCounter(clock, limits.perNameMax, limits)
  const addresses = createCounter(clock, limits.perAddressMax, limits)
  return {
    begin(name, address) {
      const place = addressKey(address)
      const retryAfterMs = Math.max(names.blockedForMs(name), addresses.blockedForMs(place))
      if (retryAfterMs > 0) return { ok: false, retryAfterMs }
      names.add(name)
      addresses.add(place)
      return {
        ok: true,
        succeeded() {
          names.forget(name)
          addresses.takeBack(place)
        },
      }
    },
  }
}

/** One subscriber has a whole /64 of IPv6. */
function addressKey(address: string): string {
  const plain = address.startsWith('::ffff:') ? address.slice(7) : address
  if (!isIPv6(plain)) return plain
  const [head = '', tail = ''] = plain.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === '' ? [] : tail.split(':')
  const middle = plain.includes('::')
    ? Array<string>(Math.max(0, 8 - left.length - right.length)).fill('0')
    : []
  return [...left, ...middle, ...right].slice(0, 4).join(':')
}

const OVERFLOW = '\0overflow'

function createCounter(clock: () => number, max: number, limits: AttemptLimits) {
  const windows = new Map<string, { count: number; readonly endsMs: number }>()

  const keyFor = (key: string): string => {
    if (windows.has(key) || windows.size < limits.keysMax) return key
    // Windows are of one length and never moved: the map is in order of their ends.
    for (const [old, window] of windows) {
      if (window.endsMs > clock()) break
      windows.delete(old)
    }
    return windows.size < limits.keysMax ? key : OVERFLOW
  }
  const live = (key: string) => {
    const window = windows.get(key)
    if (window && window.endsMs <= clock()) {
      windows.delete(key)
      return undefined
    }
    return window
  }

  return {
    blockedForMs(key: string): number {
      const window = live(keyFor(key))
      return window && window.count >= max ? Math.max(1, window.endsMs - clock()) : 0
    },
    add(key: string): void {
      const slot = keyFor(key)
      const window = live(slot)
      if (window) window.count += 1
      else windows.set(slot, { count: 1, endsMs: clock() + limits.windowMs })
    },
    takeBack(key: string): void {
      const window = live(keyFor(key))
      if (window) window.count = Math.max(0, window.count - 1)
    },
    forget(key: string): void {
      windows.delete(key)
    },
  }
}
