import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { HOST_A, HOST_B } from '../correlate/testing/findings.ts'
import { createFormation } from '../incidents/formation.ts'
import { openTemporaryState } from '../state/testing/temporary-state.ts'
import type { ConsumerDependencies } from './consumer.ts'
import { createWeigh } from './examiner.ts'
import { consumeAll, createAttack, createAttackConsumer, outcomeOf } from './testing/attack.ts'
import { at, createMemoryStore, cursorOf, detectionEvent, execEvent } from './testing/stored-events.ts'

/** What one undisturbed run leaves. */
async function undisturbed() {
  using temporary = openTemporaryState()
  await consumeAll(temporary.state, createAttack())
  return outcomeOf(temporary.state)
}

class DiskFull extends Error {
  readonly code = 'SQLITE_FULL'
}

test('detections become incidents, listed executables are found here too, and reports are passed on once each', async () => {
  const outcome = await undisturbed()
  expect(outcome.cursor).toBe(cursorOf(600))
  expect(outcome.nextIncident).toBe(outcome.incidents.length + 1)
  // Three sessions on one host, and one listed file on another.
  expect(outcome.detections.map((rows) => rows.length).sort()).toEqual([1, 4, 4, 4])
  expect(outcome.detections.flat().find(({ agent_id }) => agent_id === HOST_B)).toMatchObject({
    engine: 'ioc',
    seen_by_agent: 0,
    seen_by_fleet: 12,
  })
  expect(outcome.reports).toEqual(Array.from({ length: 12 }, () => 2))
})

test('killed at any step with kill -9, no incident is lost and none is made twice', async () => {
  const expected = await undisturbed()
  const child = join(import.meta.dirname, 'testing', 'crash-child.ts')
  using temporary = openTemporaryState()
  let kills = 0
  for (const dieAt of [1, 2, 5, 8, 11, 0]) {
    const { status, signal, stdout, stderr } = spawnSync(
      process.execPath,
      [child, temporary.path, String(dieAt)],
      { encoding: 'utf8' },
    )
    expect(stderr).not.toMatch(/Error/)
    if (signal === 'SIGKILL') kills += 1
    else expect({ status, stdout }).toEqual({ status: 0, stdout: 'finished\n' })
  }
  expect(kills).toBe(5)
  expect(outcomeOf(temporary.state)).toEqual(expected)
})

test.each([
  ['the finding is taken', 'takeFinding'],
  ['a report is applied', 'applyAgentState'],
  ['the cursor is written', 'advance'],
  ['the change is announced', 'announce'],
  ['the events are read', 'next'],
] as const)(
  'a failure of the machine while %s is tried again and changes nothing in the end',
  async (_name, where) => {
    const expected = await undisturbed()
    using temporary = openTemporaryState()
    const store = createAttack()
    const { state } = temporary
    let failures = 0
    const sometimes = <Parts extends unknown[], Result>(work: (...parts: Parts) => Result) => {
      let calls = 0
      return (...parts: Parts): Result => {
        calls += 1
        const result = work(...parts)
        if (calls % 3 === 1 && failures < 5) {
          failures += 1
          throw new DiskFull('database or disk is full')
        }
        return result
      }
    }
    const formation = createFormation({ state, announce: () => undefined })
    const overrides: { readonly [Where in typeof where]?: Partial<ConsumerDependencies> } = {
      takeFinding: { takeFinding: sometimes(formation.take) },
      announce: { announce: sometimes(() => undefined) },
      next: { tail: { next: sometimes(store.next) } },
      applyAgentState: {
        applyAgentState: sometimes((_agentId, event) => {
          state.counters.nextDelivery(event['cordon.command.id'])
        }),
      },
    }
    const failing =
      where === 'advance'
        ? { ...state, consumer: { ...state.consumer, advance: sometimes(state.consumer.advance) } }
        : state
    await consumeAll(failing, store, overrides[where])
    expect(failures).toBe(5)
    expect(outcomeOf(state)).toEqual(expected)
  },
)

test('an event that cannot be handled is set aside and said, and those around it are handled', async () => {
  using temporary = openTemporaryState()
  const { state } = temporary
  const store = createMemoryStore()
  for (const id of ['1', '2', '3']) store.add(detectionEvent(id))
  const taken: string[] = []
  await consumeAll(state, store, {
    takeFinding(finding) {
      state.consumer.advance('half-done', finding.id)
      if (finding.id.endsWith('2')) throw new TypeError('a programmer’s error')
      taken.push(finding.id.slice(-1))
    },
  })
  expect(taken).toEqual(['1', '3'])
  expect(state.consumer.cursor('half-done').slice(-1)).toBe('3')
  expect(state.audit.list(10)).toMatchObject([
    { action: 'event.setAside', subject: HOST_A, detail: expect.stringMatching(/a programmer’s error/) },
  ])
})

test('a matcher that fails on one event stops no other', async () => {
  using temporary = openTemporaryState()
  const faults: string[] = []
  const broken = () => {
    throw new Error('broken matcher')
  }
  const store = createMemoryStore(createWeigh(broken, (_error, action) => faults.push(action)))
  for (let pid = 1; pid <= 3; pid += 1) store.add(execEvent(pid))
  store.add(detectionEvent('1'))
  await consumeAll(temporary.state, store)
  expect(faults).toEqual(['exec', 'exec', 'exec'])
  expect(temporary.state.incidents.list(null, 10)).toHaveLength(1)
  expect(temporary.state.consumer.cursor('detect')).toBe(cursorOf(4))
})

test('ordinary events cost no transaction each', async () => {
  using temporary = openTemporaryState()
  const { state } = temporary
  const store = createMemoryStore()
  for (let pid = 1; pid <= 5_000; pid += 1) store.add(execEvent(pid))
  let transactions = 0
  const counting: typeof state = {
    ...state,
    run(work) {
      transactions += 1
      return state.run(work)
    },
  }
  await consumeAll(counting, store)
  expect(state.consumer.cursor('detect')).toBe(cursorOf(5_000))
  expect(transactions).toBeLessThanOrEqual(2)
})

test('events that arrive later are consumed as they come, and an abort ends the wait', async () => {
  using temporary = openTemporaryState()
  const store = createMemoryStore()
  const stop = new AbortController()
  let first: (() => void) | undefined
  const taken = new Promise<void>((resolve) => {
    first = resolve
  })
  const consumer = createAttackConsumer(temporary.state, store, { takeFinding: () => first?.() })
  const running = consumer.run(stop.signal)
  store.add(detectionEvent('1'))
  await taken
  stop.abort()
  await running
  expect(temporary.state.consumer.cursor('detect')).toBe(cursorOf(1))
})

test('tampering with an agent is an alert and an incident of its own; the same complaint again is one detection', async () => {
  using temporary = openTemporaryState()
  const { state } = temporary
  const store = createMemoryStore()
  for (const reason of ['the buffer was deleted', 'the buffer was deleted', 'a debugger attached']) {
    store.add({
      '@timestamp': at(0),
      'event.kind': 'alert',
      'event.category': 'host',
      'event.type': 'info',
      'event.action': 'tamper',
      'event.reason': reason,
    })
  }
  await consumeAll(state, store)
  expect(state.incidents.list(null, 10)).toHaveLength(1)
  const told = state.detections.ofIncident(1).map((row) => [row.rule_name, row.seen_by_agent])
  expect(new Map(told as [string, number][])).toEqual(
    new Map([
      ['Tampering with the agent: the buffer was deleted', 2],
      ['Tampering with the agent: a debugger attached', 1],
    ]),
  )
  expect(state.audit.list(10).map(({ action }) => action)).toContain('alert.tamper')
})
