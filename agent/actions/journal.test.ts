import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createSilentLogger } from '../../shared/node/logger.ts'
import { parseEvent } from '../../shared/protocol/parse.ts'
import { type ActionStateEvent, type JournalledCommand, openJournal } from './journal.ts'

let folder: string
let told: ActionStateEvent[]
let losses: string[]
let nowMs: number
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-journal-'))
  told = []
  losses = []
  nowMs = 1_700_000_000_000
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const open = (emit: (event: ActionStateEvent) => void = (event) => told.push(event)) =>
  openJournal({
    path: join(folder, 'journal.db'),
    emit,
    clock: () => nowMs,
    logger: createSilentLogger(),
    endedMax: 10,
    lost: (reason) => losses.push(reason),
  })

const command = (sequence: number, changed: Partial<JournalledCommand> = {}): JournalledCommand => ({
  commandId: sequence.toString(16).padStart(32, '0'),
  epoch: 1,
  sequence,
  action: 'killProcess',
  intentHash: 'e'.repeat(64),
  target: { kind: 'process', pid: 2 },
  args: { tree: true },
  facts: { operators: ['Ada'] },
  receivedMs: nowMs,
  expiresMs: nowMs + 1_000,
  notBeforeMs: nowMs - 1_000,
  ...changed,
})
const states = () => told.map((event) => event['cordon.command.state'])

test('a command is admitted once; the mark stands even when the id was known', () => {
  using journal = open()
  expect(journal.highest()).toEqual({ epoch: 0, sequence: 0 })
  expect(journal.admit(command(5), 'asked')).toBe(true)
  expect(journal.admit(command(5, { sequence: 9 }), 'asked')).toBe(false)
  expect(journal.highest()).toEqual({ epoch: 1, sequence: 9 })
  expect(states()).toEqual(['received'])
})

test('the mark never goes down, and an epoch outranks every sequence', () => {
  using journal = open()
  journal.admit(command(900), 'asked')
  journal.admit(command(3), 'asked')
  expect(journal.highest()).toEqual({ epoch: 1, sequence: 900 })
  journal.admit(command(1, { epoch: 2 }), 'asked')
  expect(journal.highest()).toEqual({ epoch: 2, sequence: 1 })
})

test('after a restart states, mark and open commands are as they were', () => {
  {
    using journal = open()
    for (const sequence of [1, 2, 3]) journal.admit(command(sequence), 'asked')
    journal.markApplying(command(1).commandId)
    journal.reach(command(2).commandId, 'done', 'gone', { survivors: 0 })
  }
  using journal = open()
  expect(journal.highest()).toEqual({ epoch: 1, sequence: 3 })
  expect(journal.open().map(({ sequence, applying }) => [sequence, applying])).toEqual([
    [1, true],
    [3, false],
  ])
  expect(journal.open()[0]).toMatchObject({ target: command(1).target, args: { tree: true } })
  expect(journal.present(command(2).commandId)).toMatchObject({ state: 'done', proof: { survivors: 0 } })
  expect(journal.present('f'.repeat(32))).toBeNull()
})

test('every state is told as a valid event, once, in order', () => {
  using journal = open()
  journal.admit(command(1), 'asked')
  for (const state of ['applied', 'applied', 'probed', 'done', 'done'] as const) {
    journal.reach(command(1).commandId, state, 'because', {
      tookMs: 1.5,
      gone: true,
      pids: 'x'.repeat(5_000),
      none: null,
    })
  }
  expect(states()).toEqual(['received', 'applied', 'probed', 'done'])
  for (const event of told) expect(parseEvent(JSON.stringify(event))).toMatchObject({ ok: true })
})

test('what could not be told is told later, first things first, and by the next run after a crash', () => {
  let full = true
  const emit = (event: ActionStateEvent) => {
    if (full) throw new Error('no room')
    told.push(event)
  }
  {
    using journal = open(emit)
    journal.admit(command(1), 'asked')
    journal.reach(command(1).commandId, 'applied', 'killed')
    expect(journal.tellUntold()).toBe(false)
    expect(journal.present(command(1).commandId)?.state).toBe('applied')
  }
  full = false
  using journal = open(emit)
  expect(told).toEqual([])
  expect(journal.tellUntold()).toBe(true)
  expect(states()).toEqual(['received', 'applied'])
  expect(journal.tellUntold()).toBe(true)
  expect(told).toHaveLength(2)
})

test('a repeat tells the present state again without a new entry', () => {
  using journal = open()
  journal.admit(command(1), 'asked')
  journal.reach(command(1).commandId, 'failed', 'it still runs')
  journal.repeat(command(1).commandId)
  expect(states()).toEqual(['received', 'failed', 'failed'])
  expect(journal.latest(10)).toHaveLength(2)
})

test('ended commands are forgotten beyond the bound, open ones and the mark never', () => {
  using journal = open(() => undefined)
  journal.admit(command(1), 'stays open')
  for (let sequence = 2; sequence <= 40; sequence += 1) {
    journal.admit(command(sequence), 'asked')
    journal.reach(command(sequence).commandId, 'done', 'done')
  }
  expect(journal.open()).toHaveLength(1)
  expect(journal.present(command(2).commandId)).toBeNull()
  expect(journal.present(command(40).commandId)?.state).toBe('done')
  expect(journal.highest().sequence).toBe(40)
})

const markPath = () => join(folder, 'journal.db.mark')

/** Two commands, done and not, as an agent leaves them. */
function leaveJournal() {
  using journal = open()
  journal.admit(command(4, { notBeforeMs: nowMs - 500 }), 'asked')
  journal.admit(command(7, { notBeforeMs: nowMs - 900 }), 'asked')
}

test.each([
  ['is no database', () => writeFileSync(join(folder, 'journal.db'), 'x'.repeat(8_192))],
  ['has a page overwritten', () => overwrite(join(folder, 'journal.db'), 4_096)],
  [
    'is a folder',
    () => {
      rmSync(join(folder, 'journal.db'))
      mkdirSync(join(folder, 'journal.db'))
    },
  ],
  ['is gone', () => rmSync(join(folder, 'journal.db'))],
  ['is empty', () => writeFileSync(join(folder, 'journal.db'), '')],
])('a journal that %s is told, and forgets no replay', (_what, damage) => {
  leaveJournal()
  rmSync(join(folder, 'journal.db-wal'), { force: true })
  damage()
  {
    using journal = open()
    expect(losses).toEqual([expect.stringContaining(new Date(nowMs - 500).toISOString())])
    expect(journal.highest()).toEqual({ epoch: 1, sequence: 7 })
    expect(journal.signedAfterMs()).toBe(nowMs - 500)
    expect(journal.admit(command(8), 'asked')).toBe(true)
  }
  using journal = open()
  expect(losses).toHaveLength(1)
  expect(journal.highest()).toEqual({ epoch: 1, sequence: 8 })
  expect(journal.signedAfterMs()).toBe(nowMs - 500)
})

test('what could not be read is kept beside the new journal', () => {
  leaveJournal()
  writeFileSync(join(folder, 'journal.db'), 'evidence')
  using _journal = open()
  const aside = readdirSync(folder).find((name) => name.startsWith('journal.db.damaged-2023-11-14T'))
  expect(readFileSync(join(folder, aside ?? ''), 'utf8')).toBe('evidence')
})

test('a copy from before in the place of the journal does not bring back what was executed since', () => {
  leaveJournal()
  copyFileSync(join(folder, 'journal.db'), join(folder, 'before'))
  {
    using journal = open()
    journal.admit(command(9, { notBeforeMs: nowMs }), 'asked')
  }
  copyFileSync(join(folder, 'before'), join(folder, 'journal.db'))
  rmSync(join(folder, 'journal.db-wal'), { force: true })
  using journal = open()
  expect(losses).toHaveLength(1)
  expect(journal.highest()).toEqual({ epoch: 1, sequence: 9 })
  expect(journal.signedAfterMs()).toBe(nowMs)
})

test.each([
  ['gone', () => rmSync(markPath()), 0],
  ['damaged', () => writeFileSync(markPath(), '{"epoch":'), 1],
])('without its second file (%s) the journal stands, and the file is written anew', (_what, damage, told) => {
  leaveJournal()
  damage()
  using journal = open()
  expect(losses).toHaveLength(told)
  expect(journal.signedAfterMs()).toBe(0)
  expect(JSON.parse(readFileSync(markPath(), 'utf8'))).toEqual({
    epoch: 1,
    sequence: 7,
    notBeforeMs: nowMs - 500,
  })
})

test.each([() => rmSync(markPath()), () => writeFileSync(markPath(), '')])(
  'when both are lost, nothing that was allowed before now is executed',
  (damage) => {
    leaveJournal()
    writeFileSync(join(folder, 'journal.db'), 'not a database any more')
    damage()
    using journal = open()
    expect(losses).toHaveLength(1)
    expect(journal.signedAfterMs()).toBe(nowMs)
  },
)

test('a journal of a newer program is refused, not set aside', () => {
  leaveJournal()
  {
    const db = new Database(join(folder, 'journal.db'))
    db.pragma('user_version = 99')
    db.close()
  }
  expect(() => open()).toThrow('newer Cordon')
  expect(losses).toEqual([])
})

test('a mark that cannot be written keeps the command from being taken', () => {
  using journal = open()
  rmSync(markPath())
  mkdirSync(markPath())
  expect(() => journal.admit(command(1), 'asked')).toThrow()
})

function overwrite(path: string, offset: number): void {
  const bytes = readFileSync(path)
  bytes.fill(0xa5, offset, offset + 4_096)
  writeFileSync(path, bytes)
}

test('the newest application of an action is found until it is taken back or did not hold', () => {
  using journal = open()
  const lists = (sequence: number) =>
    command(sequence, { action: 'setTelemetryLists', args: { lists: { rules: [] } } })
  expect(journal.latestApplied('setTelemetryLists')).toBeNull()
  for (const sequence of [1, 2, 3]) journal.admit(lists(sequence), 'asked')
  journal.admit(command(4), 'asked')
  journal.reach(command(4).commandId, 'applied', 'killed')
  expect(journal.latestApplied('setTelemetryLists')).toBeNull()
  journal.reach(lists(2).commandId, 'applied', 'in force')
  journal.reach(lists(1).commandId, 'applied', 'in force')
  expect(journal.latestApplied('setTelemetryLists')).toEqual({
    commandId: lists(1).commandId,
    args: { lists: { rules: [] } },
    atMs: nowMs,
  })
  journal.reach(lists(1).commandId, 'done', 'in force')
  expect(journal.latestApplied('setTelemetryLists')).not.toBeNull()
  journal.reach(lists(1).commandId, 'reverted', 'the file was altered')
  expect(journal.latestApplied('setTelemetryLists')).toBeNull()
})
