/** The world of a real process: its streams, its terminal, and Ctrl-C. */
import type { Io } from './command.ts'

const INPUT_BYTES_MAX = 64 * 1024

export function createProcessIo(program: NodeJS.Process): Io {
  const interrupted = new AbortController()
  program.on('SIGINT', () => interrupted.abort())
  program.on('SIGTERM', () => interrupted.abort())
  // A reader that has enough (`| head`) is no failure of ours.
  program.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') program.exit(0)
    throw error
  })
  const { stdin } = program
  return {
    stdout: sinkOf(program.stdout),
    stderr: sinkOf(program.stderr),
    stdin: {
      isTerminal: stdin.isTTY === true,
      ask: (prompt, hidden) => ask(program, prompt, hidden, interrupted),
      async readAll() {
        const chunks: Buffer[] = []
        let bytes = 0
        for await (const chunk of stdin) {
          bytes += chunk.length
          if (bytes > INPUT_BYTES_MAX)
            throw new Error(`standard input holds more than ${INPUT_BYTES_MAX} bytes`)
          chunks.push(Buffer.from(chunk))
        }
        return Buffer.concat(chunks).toString('utf8')
      },
    },
    environment: program.env,
    signal: interrupted.signal,
    clock: Date.now,
  }
}

function sinkOf(stream: NodeJS.WriteStream): Io['stdout'] {
  return {
    write: (text) => {
      stream.write(text)
    },
    isTerminal: stream.isTTY === true,
    get columns() {
      return stream.columns ?? 80
    },
  }
}

/** Reads one line key by key in raw mode, so that a hidden one is nowhere on the screen. */
function ask(program: NodeJS.Process, prompt: string, hidden: boolean, interrupted: AbortController) {
  const { stdin, stderr } = program
  return new Promise<string | null>((resolve) => {
    stderr.write(prompt)
    stdin.setRawMode(true)
    stdin.resume()
    stdin.setEncoding('utf8')
    let line: string[] = []
    const finish = (result: string | null) => {
      stdin.off('data', onData)
      stdin.setRawMode(false)
      stdin.pause()
      stderr.write('\n')
      resolve(result)
    }
    const onData = (text: string) => {
      for (const key of text) {
        if (key === '\r' || key === '\n') return finish(line.join(''))
        if (key === '\u0003') {
          interrupted.abort()
          return finish(null)
        }
        if (key === '\u0004') return finish(line.length > 0 ? line.join('') : null)
        if (key === '\u007f' || key === '\b') {
          if (line.length > 0 && !hidden) stderr.write('\b \b')
          line = line.slice(0, -1)
        } else if (key >= ' ' && line.length < 4_096) {
          line.push(key)
          if (!hidden) stderr.write(key)
        }
      }
    }
    stdin.on('data', onData)
  })
}
