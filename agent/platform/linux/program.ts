/** How this very program is started again, for the processes of its own. */
import { packed } from '../../../shared/node/assets.ts'
import type { ScannerProgram } from './scanner-process.ts'

/** Without an inspector that a signal could open. */
const NODE_FLAGS = ['--disable-warning=ExperimentalWarning', '--disable-sigusr1']

/** The scanner child: this program with its internal subcommand. */
export function scannerProgram(): ScannerProgram {
  // The very file that runs: the one at its path may be another version by now. It has its flags built in.
  if (packed !== null) return { command: '/proc/self/exe', args: ['scan-worker'] }
  return { command: process.execPath, args: [...NODE_FLAGS, process.argv[1] ?? '', 'scan-worker'] }
}
