/** How far something long has come, on one line of a terminal; nothing where none is. */
import type { CommandContext } from './command.ts'

const BAR_CHARACTERS = 24
const INTERVAL_MS = 100
const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const

export interface Progress {
  update(done: number, total: number): void
  /** Leaves the line, so that what follows stands on its own. */
  end(): void
}

export function createProgress({ io, options }: CommandContext): Progress {
  const isShown = io.stderr.isTerminal && !options.has('quiet')
  let shownMs = Number.NEGATIVE_INFINITY
  let isOpen = false
  return {
    update(done, total) {
      if (!isShown || (done < total && io.clock() - shownMs < INTERVAL_MS)) return
      shownMs = io.clock()
      isOpen = true
      io.stderr.write(`\r${progressLine(done, total)}\u001b[K`)
    },
    end() {
      if (isOpen) io.stderr.write('\n')
      isOpen = false
    },
  }
}

export function progressLine(done: number, total: number): string {
  const share = total === 0 ? 1 : Math.min(1, done / total)
  const filled = Math.round(share * BAR_CHARACTERS)
  const bar = `${'█'.repeat(filled)}${'░'.repeat(BAR_CHARACTERS - filled)}`
  return `${bar} ${String(Math.floor(share * 100)).padStart(3)}%  ${bytesText(done)} of ${bytesText(total)}`
}

/** Such as `4.2 MiB`. */
export function bytesText(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 1_024 && unit < UNITS.length - 1) {
    value /= 1_024
    unit += 1
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`
}
