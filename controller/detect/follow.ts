/** The store's tail with the fleet's indicators for what was stored while nobody followed it. */
import type { Logger } from '../../shared/node/logger.ts'
import type { EventTail } from '../store/event-store.ts'
import { createTail, type TailSource } from '../store/events/tail.ts'
import { createExaminer, createWeigh } from './examiner.ts'
import { compileFleetIndicators } from './fleet-matcher.ts'

export function followStore(source: TailSource, log: Pick<Logger, 'warn' | 'error'>): EventTail {
  const matcher = compileFleetIndicators(Date.now(), (problem) => {
    log.warn({ problem }, 'content was left out')
  })
  const weigh = createWeigh(
    createExaminer(() => matcher),
    (error, action) => log.error({ action, error }, 'an event could not be examined'),
  )
  return createTail(source, { weigh })
}
