/** Structured logs: JSON lines to standard error, or readable lines on a terminal. */
import { type Logger as PinoLogger, pino } from 'pino'
import type { LogLevel } from './log-level.ts'

export type Logger = Pick<PinoLogger, 'debug' | 'info' | 'warn' | 'error'> & {
  child(bindings: Record<string, unknown>): Logger
}

/** Writes JSON lines to file descriptor 2, synchronously: a crash loses no line. */
export function createLogger(program: string, level: LogLevel): Logger {
  return pino(
    {
      level,
      base: { program, pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      // Under any other name than `err`, pino would write an error as an empty object.
      serializers: { error: pino.stdSerializers.err },
    },
    pino.destination({ fd: 2, sync: true }),
  )
}

/** For tests and one-shot commands. */
export function createSilentLogger(): Logger {
  return pino({ level: 'silent' })
}
