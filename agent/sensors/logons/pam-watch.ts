/**
 * Which libraries of PAM are probed: the host's, and those of containers as they appear. A library is probed once,
 * however many processes load it, and stays so as long as the kernel programs run.
 */
import { createElapsed } from '../elapsed.ts'
import { findPamLibraries, type PamLibrary } from './pam-library.ts'

export interface PamWatch {
  /** Probes what was not probed before, with this function: for kernel programs that were only just loaded. */
  attach(probe: (library: PamLibrary) => void): void
  detach(): void
  /** Something that may hold a library appeared. */
  lookSoon(): void
  /** Looks when it is time; call it often. */
  tick(): void
  status(): PamStatus
}

export interface PamStatus {
  readonly probed: number
  /** Why the last library was not probed that was not; null: none was refused. */
  readonly problem: string | null
}

interface Options {
  /** Beginnings of the paths at which file systems of other namespaces are reached. */
  readonly roots: () => readonly string[]
  readonly clock: () => number
  readonly find?: typeof findPamLibraries
}

const LOOK_INTERVAL_MS = 60_000
/** A container has started its services by then. */
const SOON_MS = 1_000
/** Two probes for each of three functions; the addon's bound is 512. */
const LIBRARIES_MAX = 64

export function createPamWatch({ roots, clock, find = findPamLibraries }: Options): PamWatch {
  const elapsed = createElapsed(clock)
  const probed = new Set<string>()
  let probe: ((library: PamLibrary) => void) | null = null
  let problem: string | null = null
  let nextLookMs = Number.NEGATIVE_INFINITY

  function look(): void {
    nextLookMs = elapsed() + LOOK_INTERVAL_MS
    if (probe === null) return
    const found = find(['', ...roots()])
    problem = found.refused[0] ? `${found.refused[0].path}: ${found.refused[0].reason}` : null
    for (const library of found.libraries) {
      if (probed.has(library.identity) || probed.size >= LIBRARIES_MAX) continue
      probed.add(library.identity)
      try {
        probe(library)
      } catch (error) {
        probed.delete(library.identity)
        problem = `${library.path}: ${error instanceof Error ? error.message : String(error)}`
        return
      }
    }
  }

  return {
    attach(probeLibrary) {
      probe = probeLibrary
      probed.clear()
      look()
    },
    detach() {
      probe = null
      probed.clear()
    },
    lookSoon() {
      nextLookMs = Math.min(nextLookMs, elapsed() + SOON_MS)
    },
    tick() {
      if (elapsed() >= nextLookMs) look()
    },
    status: () => ({ probed: probed.size, problem }),
  }
}
