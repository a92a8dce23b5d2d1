import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createSilentLogger } from '../../shared/node/logger.ts'
import { parseEvent } from '../../shared/protocol/parse.ts'
import { type ActionStateEvent, type JournalledCommand, openJournal } from './journal.ts'

let folder: string
let told: ActionStateEvent[]
let nowMs: number
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-journal-'))
  told = []
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
