/** A map that holds at most `entriesMax` entries: the one unused for longest goes first. */
export interface Lru<Value> {
  get(key: string): Value | undefined
  set(key: string, value: Value): void
}

export function createLru<Value>(entriesMax: number): Lru<Value> {
  // A Map keeps the order of insertion, so putting an entry back makes it the newest.
  const entries = new Map<string, Value>()
  return {
    get(key) {
      const value = entries.get(key)
      if (value !== undefined) {
        entries.delete(key)
        entries.set(key, value)
      }
      return value
    },
    set(key, value) {
      entries.delete(key)
      entries.set(key, value)
      if (entries.size > entriesMax) {
        const oldest = entries.keys().next()
        if (!oldest.done) entries.delete(oldest.value)
      }
    },
  }
}
