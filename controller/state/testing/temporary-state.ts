/** A real state database in a folder of its own, removed when the scope ends. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openState, type State } from '../state.ts'

export interface TemporaryState extends Disposable {
  readonly state: State
  readonly path: string
}

export function openTemporaryState(): TemporaryState {
  const folder = mkdtempSync(join(tmpdir(), 'cordon-state-'))
  const path = join(folder, 'state.db')
  const state = openState(path)
  return {
    state,
    path,
    [Symbol.dispose]() {
      state.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
