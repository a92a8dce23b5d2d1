#!/usr/bin/env node
/** `cordon`, the operators' program. */
import { runCordon } from './run.ts'
import { createProcessIo } from './terminal.ts'

process.exitCode = await runCordon(process.argv.slice(2), createProcessIo(process))
