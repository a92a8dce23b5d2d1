/** All events of one kind from the controller's store, page by page. */
import { Events } from '../../controller/api/schemas.ts'
import type { Operator } from '../setup/operator.ts'

const PAGE = 10_000

export async function readEvents(operator: Operator, query: Readonly<Record<string, string | number>>) {
  const rows = []
  for (let after = ''; ; ) {
    const { events } = await operator.get('/events', Events, {
      ...query,
      order: 'ascending',
      limit: PAGE,
      ...(after === '' ? {} : { after }),
    })
    rows.push(...events)
    after = events.at(-1)?.cursor ?? ''
    if (events.length < PAGE) return rows
  }
}
