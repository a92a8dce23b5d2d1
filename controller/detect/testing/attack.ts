/** A stream of ordinary events with an attack in it, and the consumer over it, for the tests of crashes. */
import { createSilentLogger } from '../../../shared/node/logger.ts'
import { createAlerts } from '../../audit/alerts.ts'
import { createAuditLog } from '../../audit/audit-log.ts'
import { entity, HOST_A, HOST_B, NOW_MS } from '../../correlate/testing/findings.ts'
import { createFormation } from '../../incidents/formation.ts'
import type { State } from '../../state/state.ts'
import { type ConsumerDependencies, createConsumer } from '../consumer.ts'
import { createWeigh, type Examine } from '../examiner.ts'
import { createMemoryStore, detectionEvent, execEvent, type MemoryStore } from './stored-events.ts'

/** Executing this is what the fleet's own indicator finds. */
const LISTED = '/srv/listed'
const EVENTS = 600
/** Few, so that there are many commits to be interrupted. */
const ROWS_AT_ONCE = 40

const examine: Examine = (event) =>
  event['event.action'] === 'exec' && event['process.executable'] === LISTED
    ? [
        detectionEvent('fee1', {
          'cordon.detection.engine': 'ioc',
          'process.entity_id': entity(HOST_B, 77),
          'threat.indicator.type': 'filePath',
          'threat.indicator.name': LISTED,
        }),
      ]
    : []

export function createAttack(): MemoryStore {
  const store = createMemoryStore(createWeigh(examine, () => undefined))
  for (let index = 0; index < EVENTS; index += 1) {
    const pid = 1_000 + index
    if (index % 50 === 7) {
      const ancestors = [400 + (index % 3)].map((ancestor) => entity(HOST_A, ancestor))
      store.add(
        detectionEvent(`${index}`, {
          'process.entity_id': entity(HOST_A, pid),
          'cordon.process.ancestors': ancestors,
          'cordon.process.session_ancestors': 1,
        }),
      )
    } else if (index % 50 === 23) {
      store.add(execEvent(pid, { 'process.executable': LISTED }), HOST_B)
    } else if (index % 50 === 31) {
      store.add({
        '@timestamp': '2026-11-24T10:00:01.000Z',
        'event.kind': 'event',
        'event.category': 'host',
        'event.type': 'change',
        'event.action': 'action-state',
        'cordon.command.id': index.toString(16).padStart(32, '0'),
        'cordon.command.action': 'killProcess',
        'cordon.command.state': 'done',
        'event.reason': '',
        'cordon.command.proof': {},
      })
    } else {
      store.add(execEvent(pid))
    }
  }
  return store
}

export function createAttackConsumer(
  state: State,
  store: MemoryStore,
  overrides: Partial<ConsumerDependencies> = {},
) {
  const nowMs = () => NOW_MS
  const audit = createAuditLog(state, nowMs)
  const log = createSilentLogger()
  const announce = () => undefined
  const formation = createFormation({ state, announce })
  return createConsumer({
    state,
    tail: store,
    takeFinding: (finding) => {
      formation.take(finding)
    },
    // Counts in the same database: what is undone is not counted.
    applyAgentState: (_agentId, event) => {
      state.counters.nextDelivery(event['cordon.command.id'])
    },
    hosts: { nameOf: (agentId) => agentId.slice(0, 4), agentStarted: () => undefined },
    audit,
    alerts: createAlerts({ state, audit, log, nowMs }),
    announce,
    log,
    nowMs,
    ...overrides,
  })
}

/** Runs the consumer until it has seen all there is. */
export async function consumeAll(
  state: State,
  store: MemoryStore,
  overrides: Partial<ConsumerDependencies> = {},
): Promise<void> {
  const stop = new AbortController()
  const tail: ConsumerDependencies['tail'] = {
    next(cursor, rowsMax, signal) {
      if (cursor === store.events.at(-1)?.cursor) stop.abort()
      return (overrides.tail ?? store).next(cursor, Math.min(rowsMax, ROWS_AT_ONCE), signal)
    },
  }
  await createAttackConsumer(state, store, { ...overrides, tail }).run(stop.signal)
}

/** Everything that the consumer's work has left, for comparison. */
export function outcomeOf(state: State) {
  const incidents = state.incidents.list(null, 1_000)
  return {
    cursor: state.consumer.cursor('detect'),
    incidents,
    detections: incidents.map(({ number }) => state.detections.ofIncident(number)),
    nextIncident: state.counters.nextIncidentNumber(),
    reports: Array.from({ length: EVENTS }, (_value, index) => index)
      .filter((index) => index % 50 === 31)
      .map((index) => state.counters.nextDelivery(index.toString(16).padStart(32, '0')).sequence),
  }
}
