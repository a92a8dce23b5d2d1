/** `npm run bench -- NAME [--json]`: measures one thing and prints one object on its last line. */
import { mkdirSync, mkdtempSync, rmSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { PROCESS_LAYERS } from '../../agent/sensors/layer-names.ts'
import { buildNative } from '../build-native.ts'
import { ROOT } from '../setup/program.ts'
import { COMPILER, ensureSystemPrograms } from '../setup/system-packages.ts'
import { agentBench } from './agent.ts'
import { detectBench } from './detect.ts'
import { execBench } from './exec.ts'
import { ingestBench } from './ingest.ts'
import { type Bench, type BenchReport, describeMachine, rounded } from './report.ts'
import { soakBench } from './soak.ts'
import { stormBench } from './storm.ts'
import { stormReconnectBench } from './storm-reconnect.ts'
import { telemetryBench } from './telemetry/telemetry.ts'

const BENCHES: readonly Bench[] = [
  agentBench,
  execBench,
  detectBench,
  ingestBench,
  stormReconnectBench,
  telemetryBench,
  stormBench,
  soakBench,
]
/** A bench that fills the disk would measure that, and harm what else is on it. */
const FREE_BYTES_MIN = 10 * 1024 ** 3
/** Shorter, `soak` would have no sample after its warm-up; longer, a day would not do. */
const MINUTES_MIN = 3
const MINUTES_MAX = 1_440

const SENSOR_CHOICES = ['auto', ...PROCESS_LAYERS]

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    minutes: { type: 'string' },
    sensors: { type: 'string' },
    help: { type: 'boolean', short: 'h', default: false },
  },
})
process.exitCode = await main(positionals[0])

async function main(name: string | undefined): Promise<number> {
  const bench = BENCHES.find((one) => one.name === name)
  if (!bench || values.help) {
    console.error('usage: npm run bench -- NAME [--json] [--minutes N] [--sensors LAYER]\n')
    for (const one of BENCHES) console.error(`  ${one.name.padEnd(16)} ${one.summary}`)
    return values.help ? 0 : 2
  }
  const minutes = values.minutes === undefined ? undefined : Number(values.minutes)
  if (
    minutes !== undefined &&
    !(Number.isInteger(minutes) && minutes >= MINUTES_MIN && minutes <= MINUTES_MAX)
  ) {
    console.error(`--minutes ${values.minutes}: give a whole number from ${MINUTES_MIN} to ${MINUTES_MAX}`)
    return 2
  }
  const { sensors } = values
  if (sensors !== undefined && !SENSOR_CHOICES.some((choice) => choice === sensors)) {
    console.error(`--sensors ${sensors}: give one of ${SENSOR_CHOICES.join(', ')}`)
    return 2
  }
  const say = (line: string) => console.error(`bench ${bench.name}: ${line}`)
  const parent = join(ROOT, 'build', 'bench')
  mkdirSync(parent, { recursive: true })
  const space = statfsSync(parent)
  if (space.bavail * space.bsize < FREE_BYTES_MIN) {
    say(
      `needs 10 GiB of free disk at ${parent}; there are ${rounded((space.bavail * space.bsize) / 1024 ** 3)} GiB`,
    )
    return 1
  }
  const system = ensureSystemPrograms(COMPILER, say)
  if (system.kind === 'missing') {
    say(system.mend)
    return 1
  }
  const native = buildNative()
  if (native.kind === 'failed') {
    say(native.reason)
    return 1
  }
  const folder = mkdtempSync(join(parent, `${bench.name}-`))
  try {
    const { figures, notes } = await bench.run({
      say,
      folder,
      ...(minutes === undefined ? {} : { minutes }),
      ...(sensors === undefined ? {} : { sensors }),
    })
    const report: BenchReport = {
      bench: bench.name,
      machine: describeMachine(),
      figures: Object.fromEntries(Object.entries(figures).map(([key, value]) => [key, rounded(value)])),
      notes,
    }
    if (!values.json) {
      for (const [key, value] of Object.entries(report.figures)) console.log(`${key.padEnd(32)} ${value}`)
      for (const note of notes) console.log(`- ${note}`)
    }
    console.log(JSON.stringify(report))
    return 0
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
