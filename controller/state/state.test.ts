import Database from 'better-sqlite3'
import { expect, test } from 'vitest'
import { createChangeFeed } from './change-feed.ts'
import { openState } from './state.ts'
import { openTemporaryState } from './testing/temporary-state.ts'

test('effects run after the commit, in order, and never after a rollback', () => {
  using temporary = openTemporaryState()
  const { state } = temporary
  const told: string[] = []
  state.run(() => {
    state.afterCommit(() => told.push(`first, cursor ${state.consumer.cursor('c')}`))
    state.consumer.advance('c', '1')
    expect(told).toEqual([])
    state.run(() => state.afterCommit(() => told.push('nested')))
  })
  expect(told).toEqual(['first, cursor 1', 'nested'])
  expect(() =>
    state.run(() => {
      state.consumer.advance('c', '2')
      state.afterCommit(() => told.push('never'))
      throw new Error('broken')
    }),
  ).toThrow('broken')
  expect(state.consumer.cursor('c')).toBe('1')
  expect(told).toHaveLength(2)
})

test('a savepoint that fails undoes its own writes and effects, and leaves those around it', () => {
  using temporary = openTemporaryState()
  const { state } = temporary
  const told: string[] = []
  state.run(() => {
    state.consumer.advance('outer', '1')
    state.afterCommit(() => told.push('outer'))
    expect(() =>
      state.run(() => {
        state.consumer.advance('inner', '1')
        state.afterCommit(() => told.push('inner'))
        throw new Error('broken')
      }),
    ).toThrow('broken')
  })
  expect(told).toEqual(['outer'])
  expect(state.consumer.cursor('outer')).toBe('1')
  expect(state.consumer.cursor('inner')).toBe('')
})

test('an effect that throws does not keep the next ones from running', () => {
  using temporary = openTemporaryState()
  const { state } = temporary
  const told: string[] = []
  expect(() =>
    state.run(() => {
      state.afterCommit(() => {
        throw new Error('broken effect')
      })
      state.afterCommit(() => told.push('next'))
    }),
  ).toThrow('broken effect')
  expect(told).toEqual(['next'])
})

test('delivery sequences rise without a gap or repeat per agent, start anew in a new epoch, and outlive a restart', () => {
  using temporary = openTemporaryState()
  const { state, path } = temporary
  expect(state.counters.nextDelivery('a')).toEqual({ epoch: 1, sequence: 1 })
  expect(state.counters.nextDelivery('a')).toEqual({ epoch: 1, sequence: 2 })
  expect(state.counters.nextDelivery('b')).toEqual({ epoch: 1, sequence: 1 })
  const again = openState(path)
  expect(again.counters.nextDelivery('a')).toEqual({ epoch: 1, sequence: 3 })
  expect(again.counters.raiseEpoch()).toBe(2)
  expect(again.counters.nextDelivery('a')).toEqual({ epoch: 2, sequence: 1 })
  expect(again.counters.raiseEpoch(1_000)).toBe(1_000)
  expect(again.counters.raiseEpoch(500)).toBe(1_001)
  again.close()
})

test('every table is strict', () => {
  using temporary = openTemporaryState()
  const db = new Database(temporary.path, { readonly: true })
  const tables = db.prepare("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'").all() as {
    name: string
    strict: number
  }[]
  db.close()
  const loose = tables.filter(({ name, strict }) => strict === 0 && !name.startsWith('sqlite_'))
  expect(tables.length).toBeGreaterThan(10)
  expect(loose).toEqual([])
})

test('a listener hears every change until its signal aborts, and one that throws silences nobody else', () => {
  const feed = createChangeFeed()
  const heard: string[] = []
  const stop = new AbortController()
  feed.subscribe(() => {
    throw new Error('broken listener')
  }, new AbortController().signal)
  feed.subscribe((change) => heard.push(change.kind), stop.signal)
  feed.announce({ kind: 'incident', id: 'INC-1' })
  feed.announce({ kind: 'host', id: 'x' })
  stop.abort()
  feed.announce({ kind: 'host', id: 'x' })
  expect(heard).toEqual(['incident', 'host'])
})
