import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createSilentLogger } from '../../shared/node/logger.ts'
import { generateSigningKey, signBytes } from '../../shared/node/signing.ts'
import { hashTelemetryLists } from '../../shared/node/telemetry-hash.ts'
import type { Command } from '../../shared/protocol/messages.ts'
import type { TelemetryLists, TelemetryRule } from '../../shared/protocol/telemetry-lists.ts'
import type { FileRecord, SensorRecord } from '../sensors/records.ts'
import { compileTelemetryLists } from '../sensors/volume/telemetry-matcher.ts'
import { createVolume } from '../sensors/volume/volume.ts'
import type { Actions } from './action.ts'
import { type ActionStateEvent, openJournal } from './journal.ts'
import { createReceiver } from './receiver.ts'
import { openTelemetryLists } from './telemetry-lists.ts'
import { telemetryRecordPath } from './telemetry-record.ts'
import { commandIdOf, createTestFleet, type TestFleet } from './testing/test-commands.ts'

const HOST = { kind: 'host', breakGlassHash: null } as const
const drop = (folder: string, changes: Partial<TelemetryRule> = {}): TelemetryRule => ({
  name: `not ${folder.slice(1).replaceAll('/', ' ')}`,
  verdict: 'drop',
  pathPrefix: folder,
  ...changes,
})
const listsOf = (...rules: TelemetryRule[]): TelemetryLists => ({ rules })

let stateFolder: string
let fleet: TestFleet
let sequence: number
let events: ActionStateEvent[]
let tampers: string[]
beforeEach(() => {
  stateFolder = mkdtempSync(join(tmpdir(), 'cordon-lists-'))
  fleet = createTestFleet(Date.now)
  sequence = 0
  events = []
  tampers = []
})
afterEach(() => rmSync(stateFolder, { recursive: true, force: true }))

/** The parts of an agent that lists go through; each call is a start of it. */
function startAgent(endedMax?: number) {
  const told: SensorRecord[] = []
  const volume = createVolume({ sink: (records) => told.push(...records), clock: Date.now })
  const journal = openJournal({
    path: join(stateFolder, 'journal.db'),
    emit: (event) => events.push(event),
    clock: Date.now,
    logger: createSilentLogger(),
    lost: (reason) => tampers.push(reason),
    ...(endedMax === undefined ? {} : { endedMax }),
  })
  const lists = openTelemetryLists({
    stateFolder,
    journal,
    compile: compileTelemetryLists,
    setLists: volume.setLists,
    tampered: (reason) => tampers.push(reason),
    clock: Date.now,
  })
  const receiver = createReceiver({
    verificationContext: () => fleet.context,
    journal,
    actions: { setTelemetryLists: lists.action } as unknown as Actions,
    emit: (event) =>
      event['event.action'] === 'tamper' ? tampers.push(event['event.reason']) : events.push(event),
    clock: Date.now,
    logger: createSilentLogger(),
  })
  const stop = new AbortController()
  const running = receiver.run(stop.signal)
  return {
    lists,
    journal,
    receiver,
    async carryOut(message: Command) {
      receiver.receive(message)
      await receiver.idle()
      return commandIdOf(message)
    },
    /** Whether a modification of the file is told. */
    tells(path: string): boolean {
      told.length = 0
      volume.accept([modificationOf(path)])
      return told.some(({ kind }) => kind === 'file')
    },
    /** What was told when the lists changed last: counts of what rules dropped. */
    gaps: () => told.filter((record) => record.kind === 'suppressed'),
    async [Symbol.asyncDispose]() {
      stop.abort()
      await running
      journal[Symbol.dispose]()
    },
  }
}

let inode = 0
function modificationOf(path: string): FileRecord {
  inode += 1
  return {
    kind: 'file',
    timestampMs: Date.now(),
    pid: 1_000_000 + inode,
    action: 'modification',
    path,
    previousPath: null,
    contentComplete: true,
  }
}

function sign(lists: TelemetryLists): Command {
  sequence += 1
  return fleet.sign('setTelemetryLists', HOST, { lists }, { sequence })
}

const statesOf = (commandId: string) =>
  events
    .filter((event) => event['cordon.command.id'] === commandId)
    .map((event) => event['cordon.command.state'])
const proofOf = (commandId: string) =>
  events.findLast((event) => event['cordon.command.id'] === commandId)?.['cordon.command.proof']
const recordText = () => readFileSync(telemetryRecordPath(stateFolder), 'utf8')

test('signed lists take effect, are proved by number and hash, and are kept in a file of the agent alone', async () => {
  await using agent = startAgent()
  const lists = listsOf(drop('/var/log'))
  expect([agent.lists.inForce(), agent.tells('/var/log/a')]).toEqual([null, true])
  const commandId = await agent.carryOut(sign(lists))
  expect(statesOf(commandId)).toEqual(['received', 'applied', 'probed', 'done'])
  const sha256 = hashTelemetryLists(lists)
  expect(proofOf(commandId)).toMatchObject({ rules: 1, sha256, onDisk: sha256 })
  expect(agent.lists.inForce()).toMatchObject({ rules: 1, sha256, commandId })
  expect([agent.tells('/var/log/a'), agent.tells('/var/logs/a')]).toEqual([false, true])
  expect(statSync(telemetryRecordPath(stateFolder)).mode & 0o777).toBe(0o600)
  expect(readdirSync(stateFolder).filter((name) => name.endsWith('.new'))).toEqual([])
  expect(tampers).toEqual([])
})

test('new lists replace the old ones, and what the old ones dropped is told with its count at once', async () => {
  await using agent = startAgent()
  await agent.carryOut(sign(listsOf(drop('/a'))))
  for (const path of ['/a/1', '/a/2', '/a/3']) expect(agent.tells(path)).toBe(false)
  await agent.carryOut(sign(listsOf(drop('/b'))))
  expect(agent.gaps()).toEqual([
    expect.objectContaining({ counts: { 'file-modified': 3 }, reason: expect.stringContaining('"not a"') }),
  ])
  expect([agent.tells('/a/1'), agent.tells('/b/1')]).toEqual([true, false])
})

test('lists without rules remove those in force, with their file, and are proved alike', async () => {
  await using agent = startAgent()
  await agent.carryOut(sign(listsOf(drop('/a'))))
  const commandId = await agent.carryOut(sign(listsOf()))
  expect(statesOf(commandId).at(-1)).toBe('done')
  expect(proofOf(commandId)).toMatchObject({ rules: 0, sha256: hashTelemetryLists(listsOf()) })
  expect([agent.lists.inForce(), agent.tells('/a/1')]).toEqual([null, true])
  expect(existsSync(telemetryRecordPath(stateFolder))).toBe(false)
})

test('lists are in force again after a restart, from the first record on', async () => {
  const lists = listsOf(drop('/a'))
  let before: unknown
  {
    await using agent = startAgent()
    await agent.carryOut(sign(lists))
    before = agent.lists.inForce()
  }
  await using again = startAgent()
  expect(again.tells('/a/1')).toBe(false)
  expect(again.lists.inForce()).toMatchObject({ ...(before as object), since: expect.any(String) })
  expect(tampers).toEqual([])
})

test('a removal stays one after a restart', async () => {
  {
    await using agent = startAgent()
    await agent.carryOut(sign(listsOf(drop('/a'))))
    await agent.carryOut(sign(listsOf()))
  }
  await using again = startAgent()
  expect([again.lists.inForce(), again.tells('/a/1'), tampers]).toEqual([null, true, []])
})

test('what lists are in force is known although its command is older than those the journal keeps', async () => {
  const endedMax = 3
  {
    await using agent = startAgent(endedMax)
    await agent.carryOut(sign(listsOf(drop('/a'))))
    for (let count = 0; count < 6; count += 1) {
      sequence += 1
      const commandId = sequence.toString(16).padStart(32, '0')
      const [expiresMs, receivedMs, notBeforeMs] = [Date.now() + 60_000, Date.now(), Date.now()]
      const facts = { commandId, epoch: 1, sequence, intentHash: 'e'.repeat(64), target: HOST, args: {} }
      agent.journal.admit(
        { ...facts, action: 'scanPath', facts: {}, receivedMs, expiresMs, notBeforeMs },
        'x',
      )
      agent.journal.reach(commandId, 'done', 'scanned')
    }
    expect(agent.journal.present('3'.padStart(32, '0'))).toBeNull()
  }
  await using again = startAgent(endedMax)
  expect([again.tells('/a/1'), tampers]).toEqual([false, []])
})

/** What somebody with the disk does while the agent is stopped, after `/b` had replaced `/a`. */
const alterations: [string, (path: string, ofA: string) => void][] = [
  ['drops more', (path) => writeFileSync(path, recordText().replace('/b', '/'))],
  [
    'names another command',
    (path) => writeFileSync(path, recordText().replace(/[0-9a-f]{32}/, 'a'.repeat(32))),
  ],
  ['is the one from before', (path, ofA) => writeFileSync(path, ofA)],
  ['is cut short', (path) => writeFileSync(path, recordText().slice(0, 40))],
  ['is empty', (path) => writeFileSync(path, '')],
  ['is too large', (path) => writeFileSync(path, ' '.repeat(1024 ** 2))],
  ['has rules that do not exist', (path) => writeFileSync(path, recordText().replace('"drop"', '"hide"'))],
  ['is gone', (path) => rmSync(path)],
  [
    'is a folder',
    (path) => {
      rmSync(path)
      mkdirSync(path)
    },
  ],
  [
    'is a link to the same elsewhere',
    (path) => {
      renameSync(path, `${path}.moved`)
      symlinkSync(`${path}.moved`, path)
    },
  ],
]

test.each(alterations)(
  'a file that %s is told as tampering, once, and the host runs without lists',
  async (_, alter) => {
    let ofA = ''
    let commandId = ''
    {
      await using agent = startAgent()
      await agent.carryOut(sign(listsOf(drop('/a'))))
      ofA = recordText()
      commandId = await agent.carryOut(sign(listsOf(drop('/b'))))
    }
    alter(telemetryRecordPath(stateFolder), ofA)
    {
      await using altered = startAgent()
      expect(tampers).toEqual([expect.stringContaining('this host runs without telemetry lists')])
      expect(altered.lists.inForce()).toBeNull()
      expect(['/a/1', '/b/1'].map(altered.tells)).toEqual([true, true])
      expect(statesOf(commandId).at(-1)).toBe('reverted')
    }
    {
      await using later = startAgent()
      expect([tampers.length, later.tells('/b/1')]).toEqual([1, true])
      await later.carryOut(sign(listsOf(drop('/c'))))
      expect(later.tells('/c/1')).toBe(false)
    }
  },
)

test('a file that no command brought is not believed', async () => {
  const record = { v: 1, commandId: 'a'.repeat(32), lists: listsOf(drop('/a')) }
  writeFileSync(telemetryRecordPath(stateFolder), JSON.stringify(record))
  await using agent = startAgent()
  expect(tampers).toEqual([expect.stringContaining('not those that operators signed')])
  expect([agent.lists.inForce(), agent.tells('/a/1')]).toEqual([null, true])
  expect(existsSync(`${telemetryRecordPath(stateFolder)}.damaged`)).toBe(true)
})

test('lists that were removed do not come back with their file', async () => {
  const kept = join(stateFolder, 'kept')
  let removal = ''
  {
    await using agent = startAgent()
    await agent.carryOut(sign(listsOf(drop('/a'))))
    copyFileSync(telemetryRecordPath(stateFolder), kept)
    removal = await agent.carryOut(sign(listsOf()))
  }
  renameSync(kept, telemetryRecordPath(stateFolder))
  await using again = startAgent()
  expect([tampers.length, again.tells('/a/1'), statesOf(removal).at(-1)]).toEqual([1, true, 'done'])
})

test('a crash between the file and the journal leaves no doubt: the lists hold and their command is done', async () => {
  const message = sign(listsOf(drop('/b')))
  let record = ''
  {
    await using agent = startAgent()
    await agent.carryOut(sign(listsOf(drop('/a'))))
  }
  {
    // The command is in the journal as begun, and its file is written; nothing came after.
    await using agent = startAgent()
    const { journal } = agent
    const args = { lists: listsOf(drop('/b')) }
    const commandId = commandIdOf(message)
    const [expiresMs, receivedMs, notBeforeMs] = [Date.now() + 60_000, Date.now(), Date.now()]
    const facts = {
      commandId,
      epoch: 1,
      sequence: 9,
      intentHash: 'e'.repeat(64),
      target: HOST,
      args,
      facts: {},
    }
    journal.admit({ ...facts, action: 'setTelemetryLists', receivedMs, expiresMs, notBeforeMs }, 'x')
    journal.markApplying(commandId)
    record = JSON.stringify({ v: 1, commandId, lists: args.lists })
  }
  writeFileSync(telemetryRecordPath(stateFolder), record)
  await using again = startAgent()
  expect([again.tells('/a/1'), again.tells('/b/1')]).toEqual([true, false])
  await again.receiver.idle()
  expect(statesOf(commandIdOf(message)).at(-1)).toBe('done')
  expect(tampers).toEqual([])
})

test('lists that nobody signed, or somebody who is no operator, change nothing and are told as tampering', async () => {
  await using agent = startAgent()
  const lists = listsOf(drop('/a'))
  const stranger = generateSigningKey()
  const unsigned = { ...sign(lists), signatures: [] }
  const byStranger = sign(lists)
  const intent = Buffer.from(byStranger.intent, 'base64')
  const byController = sign(lists)
  const messages: Command[] = [
    unsigned,
    { ...byStranger, signatures: [signBytes('intent', intent, stranger)] },
    { ...byController, signatures: [byController.wrapperSignature] },
  ]
  for (const message of messages) {
    const commandId = await agent.carryOut(message)
    expect(statesOf(commandId)).toEqual(['refused'])
  }
  expect(tampers).toHaveLength(3)
  expect([agent.lists.inForce(), agent.tells('/a/1')]).toEqual([null, true])
})

test('signed lists that mean nothing are refused with the rule, and those in force stay', async () => {
  await using agent = startAgent()
  await agent.carryOut(sign(listsOf(drop('/a'))))
  const commandId = await agent.carryOut(sign(listsOf({ name: 'all', verdict: 'drop' })))
  expect(statesOf(commandId)).toEqual(['received', 'refused'])
  expect(events.at(-1)?.['event.reason']).toContain('telemetry rule "all": it would drop all')
  expect(agent.tells('/a/1')).toBe(false)
})

test('lists that cannot be kept on disk are not put in force', async () => {
  await using agent = startAgent()
  await agent.carryOut(sign(listsOf(drop('/a'))))
  rmSync(telemetryRecordPath(stateFolder))
  // In the place of a folder no file can be put.
  mkdirSync(telemetryRecordPath(stateFolder))
  chmodSync(telemetryRecordPath(stateFolder), 0o700)
  const commandId = await agent.carryOut(sign(listsOf(drop('/b'))))
  expect(statesOf(commandId)).toEqual(['received', 'failed'])
  expect([agent.tells('/a/1'), agent.tells('/b/1')]).toEqual([false, true])
})
