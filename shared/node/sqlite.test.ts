import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openSqlite } from './sqlite.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-sqlite-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

test('migrations run once each, in order, over several openings', () => {
  const path = join(folder, 'a.db')
  const first = 'CREATE TABLE note (id INTEGER PRIMARY KEY) STRICT'
  openSqlite({ path, migrations: [first] }).close()
  const db = openSqlite({ path, migrations: [first, 'ALTER TABLE note ADD COLUMN body TEXT'] })
  db.prepare('INSERT INTO note (body) VALUES (?)').run('kept')
  db.close()
  const again = openSqlite({ path, migrations: [first, 'ALTER TABLE note ADD COLUMN body TEXT'] })
  expect(again.prepare('SELECT body FROM note').all()).toEqual([{ body: 'kept' }])
  expect(again.pragma('user_version', { simple: true })).toBe(2)
  again.close()
})

test('a failing migration leaves the schema as it was', () => {
  const path = join(folder, 'b.db')
  expect(() =>
    openSqlite({
      path,
      migrations: ['CREATE TABLE a (id INTEGER) STRICT; CREATE TABLE a (id INTEGER) STRICT'],
    }),
  ).toThrow(/already exists/)
  const db = openSqlite({ path, migrations: [] })
  expect(db.prepare("SELECT name FROM sqlite_master WHERE name = 'a'").all()).toEqual([])
  db.close()
})

test('a database of a newer program is refused by name', () => {
  const path = join(folder, 'c.db')
  openSqlite({ path, migrations: ['SELECT 1', 'SELECT 1'] }).close()
  expect(() => openSqlite({ path, migrations: ['SELECT 1'] })).toThrow(/newer Cordon/)
})

test('commits are on disk when they return', () => {
  const db = openSqlite({ path: join(folder, 'd.db'), migrations: [] })
  expect(db.pragma('journal_mode', { simple: true })).toBe('wal')
  expect(db.pragma('synchronous', { simple: true })).toBe(2)
  db.close()
})

test('a database and what SQLite puts beside it are for their owner alone, also one that was open to others', () => {
  const path = join(folder, 'e.db')
  const modes = () => readdirSync(folder).map((name) => [name, statSync(join(folder, name)).mode & 0o777])
  const write = () => {
    const db = openSqlite({ path, migrations: ['CREATE TABLE note (id INTEGER) STRICT'] })
    db.prepare('INSERT INTO note VALUES (1)').run()
    const found = modes()
    db.close()
    return found
  }
  const expected = ['e.db', 'e.db-shm', 'e.db-wal'].map((name) => [name, 0o600])
  expect(write()).toEqual(expected)
  chmodSync(path, 0o664)
  expect(write()).toEqual(expected)
})
