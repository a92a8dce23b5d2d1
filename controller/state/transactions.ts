/**
 * One transaction around everything that belongs together, and effects on the outside (messages,
 * notifications) only once it is on disk: nobody hears of what a crash could still undo.
 */
import type { Sqlite } from '../../shared/node/sqlite.ts'

export interface Transactions {
  /** Runs `work` in a transaction; inside another one, in a savepoint of it. A throw undoes all of `work`. */
  run<Result>(work: () => Result): Result
  /** Runs `effect` after the outermost commit, or at once outside a transaction; never after a rollback. */
  afterCommit(effect: () => void): void
}

export function createTransactions(db: Sqlite): Transactions {
  const waiting: (() => void)[] = []

  const flush = () => {
    // Effects may start transactions, and those may add effects: one loop takes them all in order. One that
    // throws is a programmer's error; the others still run before it comes out.
    const failures: unknown[] = []
    for (let effect = waiting.shift(); effect !== undefined; effect = waiting.shift()) {
      try {
        effect()
      } catch (error) {
        failures.push(error)
      }
    }
    if (failures.length > 0) throw failures[0]
  }

  return {
    run<Result>(work: () => Result): Result {
      const outermost = !db.inTransaction
      const before = waiting.length
      let result: Result
      try {
        const transaction = db.transaction(work)
        // Immediate: the write lock is taken before anything is read that the writes depend on.
        result = outermost ? transaction.immediate() : transaction()
      } catch (error) {
        waiting.length = before
        throw error
      }
      if (outermost) flush()
      return result
    },
    afterCommit(effect) {
      if (db.inTransaction) waiting.push(effect)
      else effect()
    },
  }
}
