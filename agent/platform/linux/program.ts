/** How this very program is started again, for the processes of its own. */
import type { ScannerProgram } from './scanner-process.ts'

/** The scanner child: this program with its internal subcommand. */
export function scannerProgram(): ScannerProgram {
  const [, script] = process.argv
  return {
    command: process.execPath,
    args: [...(script === undefined ? [] : ['--disable-warning=ExperimentalWarning', script]), 'scan-worker'],
  }
}
