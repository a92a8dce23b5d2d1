#!/usr/bin/env node
/** `cordon`, the operators' program. */
import { runCordon } from './run.ts'
import { createProcessIo } from './terminal.ts'

// No top-level await: the bundle of the single-file program cannot hold one.
runCordon(process.argv.slice(2), createProcessIo(process)).then((exitCode) => {
  process.exitCode = exitCode
})
