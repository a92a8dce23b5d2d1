/**
 * Tells what a process does to one path over and over once, and then once more when the window is over: with the
 * last record of each action, and how many came between. The order of the actions on a path is kept.
 *
 * The table has as many places as it has room, and a path has one of them by its hash: nothing is allocated for
 * one that does not repeat. Whoever needs a taken place releases what is held there, so nothing is ever lost.
 */
import type { FileRecord } from '../records.ts'

/** A process, as one object from its first record to its end. */
export interface PathOwner {
  readonly pid: number
  /** Places of the table in which something of it is held. */
  heldPlaces: number
}

/** What one process did to one path within the window. */
interface Place<Owner> {
  owner: Owner
  key: string
  endsMs: number
  /** Actions that were told, as bits. */
  told: number
  /** Actions that came again, the one that came last at the end. */
  held: Held[] | null
  /** It stands in the list of places in which something is held. */
  isListed: boolean
}

interface Held {
  record: FileRecord
  count: number
  contentComplete: boolean
}

export interface Repeats<Owner extends PathOwner> {
  /** True when the record is kept until the window ends. */
  hold(owner: Owner, record: FileRecord, nowMs: number): boolean
  /** The record was told: from now on its like is held. */
  told(owner: Owner, record: FileRecord, nowMs: number): void
  /** Releases what is held of a path because another action is about to be told. */
  releasePath(owner: Owner, record: FileRecord): void
  /** Releases what is held of a process. */
  releaseAll(owner: Owner): void
  /** Releases what is due. */
  expire(nowMs: number): void
  readonly isEmpty: () => boolean
}

const bits = { creation: 1, modification: 2, deletion: 4, rename: 8 } as const
/** All places in which something is held are looked at, so not more often than this. */
const expirePauseMs = 50
const hashedCharacters = 64

/** `placesMax` is a power of two. `release` gets each record that was held, with `repeated`, and its owner. */
export function createRepeats<Owner extends PathOwner>(
  windowMs: number,
  placesMax: number,
  release: (record: FileRecord, owner: Owner) => void,
): Repeats<Owner> {
  const places: (Place<Owner> | undefined)[] = new Array(placesMax)
  let listed: Place<Owner>[] = []
  let nextExpireMs = Number.POSITIVE_INFINITY
  let heldPlaces = 0

  function indexOf(owner: Owner, key: string): number {
    let hash = Math.imul(owner.pid, 0x9e3779b1) ^ key.length
    // The end is where paths differ.
    for (let at = Math.max(0, key.length - hashedCharacters); at < key.length; at += 1) {
      hash = Math.imul(hash ^ key.charCodeAt(at), 0x01000193)
    }
    return (hash ^ (hash >>> 15)) & (placesMax - 1)
  }

  function find(owner: Owner, key: string): Place<Owner> | undefined {
    const place = places[indexOf(owner, key)]
    return place !== undefined && place.owner === owner && place.key === key ? place : undefined
  }

  function releasePlace(place: Place<Owner>): void {
    const { held } = place
    if (held === null) return
    place.held = null
    place.owner.heldPlaces -= 1
    heldPlaces -= 1
    for (const { record, count, contentComplete } of held) {
      const repeated = count > 1 ? { repeated: count - 1 } : {}
      release({ ...record, contentComplete, ...repeated }, place.owner)
    }
  }

  function beginHolding(place: Place<Owner>): Held[] {
    place.held = []
    place.owner.heldPlaces += 1
    heldPlaces += 1
    if (!place.isListed) {
      place.isListed = true
      listed.push(place)
    }
    nextExpireMs = Math.min(nextExpireMs, place.endsMs)
    return place.held
  }

  return {
    hold(owner, record, nowMs) {
      const place = find(owner, keyOf(record))
      if (place === undefined || (place.told & bits[record.action]) === 0) return false
      if (place.held === null && place.endsMs <= nowMs) return false
      const held = place.held ?? beginHolding(place)
      const at = held.findIndex((each) => each.record.action === record.action)
      const [known] = at === -1 ? [] : held.splice(at, 1)
      held.push({
        record,
        count: (known?.count ?? 0) + 1,
        contentComplete: record.contentComplete || (known?.contentComplete ?? false),
      })
      return true
    },
    told(owner, record, nowMs) {
      const key = keyOf(record)
      const index = indexOf(owner, key)
      const place = places[index]
      const endsMs = nowMs + windowMs
      const told = bits[record.action]
      if (place === undefined) {
        places[index] = { owner, key, endsMs, told, held: null, isListed: false }
        return
      }
      const isSame = place.owner === owner && place.key === key
      if (isSame && (place.held !== null || place.endsMs > nowMs)) {
        place.told |= told
        return
      }
      releasePlace(place)
      place.owner = owner
      place.key = key
      place.endsMs = endsMs
      place.told = told
    },
    releasePath(owner, record) {
      if (owner.heldPlaces === 0) return
      const place = find(owner, keyOf(record))
      if (place !== undefined) releasePlace(place)
    },
    releaseAll(owner) {
      if (owner.heldPlaces === 0) return
      for (const place of listed) if (place.owner === owner) releasePlace(place)
    },
    expire(nowMs) {
      if (nowMs < nextExpireMs) return
      let earliestMs = Number.POSITIVE_INFINITY
      const kept: Place<Owner>[] = []
      for (const place of listed) {
        if (place.held !== null && place.endsMs <= nowMs) {
          releasePlace(place)
          // It goes on: what was released counts as told, and a new window begins.
          place.endsMs = nowMs + windowMs
        }
        place.isListed = place.held !== null
        if (!place.isListed) continue
        kept.push(place)
        earliestMs = Math.min(earliestMs, place.endsMs)
      }
      listed = kept
      nextExpireMs = Math.max(earliestMs, nowMs + expirePauseMs)
    },
    isEmpty: () => heldPlaces === 0,
  }
}

/** Bytes that are no text have a key that no path has. */
export function keyOf({ path }: FileRecord): string {
  return typeof path === 'string' ? path : `\0${Buffer.from(path).toString('latin1')}`
}
