/** How this very program is started again, for the processes of its own. */
import type { ScannerProgram } from './scanner-process.ts'

/** Without an inspector that a signal could open. */
const NODE_FLAGS = ['--disable-warning=ExperimentalWarning', '--disable-sigusr1']

/** The scanner child: this program with its internal subcommand. */
export function scannerProgram(): ScannerProgram {
  const [, script] = process.argv
  return {
    command: process.execPath,
    args: [...(script === undefined ? [] : [...NODE_FLAGS, script]), 'scan-worker'],
  }
}
