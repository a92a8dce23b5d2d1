/** A program that stores batches as fast as it can and says which were acknowledged, until somebody kills it. */
import { writeSync } from 'node:fs'
import { createSilentLogger } from '../../../../shared/node/logger.ts'
import { openEmbeddedEventStore } from '../embedded-event-store.ts'
import { createSampleStream, sampleAgentId } from './sample-stream.ts'

const STREAMS = 4
const ROWS = 20

const folder = process.argv[2]
if (folder === undefined) throw new Error('the folder is missing')
const store = await openEmbeddedEventStore({ folder, logger: createSilentLogger() })
await Promise.all(
  Array.from({ length: STREAMS }, async (_, number) => {
    const agentId = sampleAgentId(number)
    const stream = createSampleStream(agentId)
    for (;;) {
      const [watermark] = await store.watermarks(agentId, agentId)
      const first = (watermark?.sequence ?? 0) + 1
      const result = await store.append(stream.batch(first, ROWS, Date.now()))
      if (result.kind !== 'stored') throw new Error(result.kind)
      // Not console.log: the line must be out before the next append begins.
      writeSync(1, `${number} ${result.sequence}\n`)
    }
  }),
)
