/**
 * A map that holds at most `entriesMax` entries and forgets what was unused for long. Two halves instead of an
 * order of all entries: a look into it is one or two look-ups and writes nothing, at a thousand programs a second.
 */
export interface Lru<Value> {
  get(key: string): Value | undefined
  set(key: string, value: Value): void
}

export function createLru<Value>(entriesMax: number): Lru<Value> {
  const halfMax = Math.max(1, Math.floor(entriesMax / 2))
  let young = new Map<string, Value>()
  let old = new Map<string, Value>()

  function set(key: string, value: Value): void {
    young.set(key, value)
    if (young.size < halfMax) return
    old = young
    young = new Map()
  }

  return {
    get(key) {
      const value = young.get(key)
      if (value !== undefined) return value
      const older = old.get(key)
      // Used again: it stays when the old half goes.
      if (older !== undefined) set(key, older)
      return older
    },
    set,
  }
}
