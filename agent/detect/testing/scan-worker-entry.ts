/** A program that is only the scanner child, as the agent's own internal subcommand is. */
import { loadNative } from '../../native/addon.ts'
import { runScanWorker } from '../scan-worker.ts'
import { loadYaraAddon } from '../yara-engine.ts'

const loaded = process.argv[2] === 'without-native' ? null : loadNative()
process.exitCode = runScanWorker({ yara: loadYaraAddon(), native: loaded?.ok ? loaded.native : null })
