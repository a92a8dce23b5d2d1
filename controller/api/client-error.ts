/** Answers to what is not even HTTP, or too much of it; written to the socket by hand, for no request exists. */
import { randomBytes } from 'node:crypto'
import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { errorBody, PROBLEMS, type ProblemCode, problem } from './problem.ts'

const CODES: Readonly<Record<string, readonly [ProblemCode, string]>> = {
  HPE_HEADER_OVERFLOW: ['headersTooLarge', 'the headers are too large'],
  ERR_HTTP_REQUEST_TIMEOUT: ['requestTimeout', 'the request took too long to arrive'],
}

export function answerClientError(headers: () => Readonly<Record<string, string>>) {
  return (error: NodeJS.ErrnoException, socket: Socket): void => {
    if (error.code === 'ECONNRESET' || !socket.writable) {
      socket.destroy()
      return
    }
    const [code, message] = CODES[error.code ?? ''] ?? ['malformedBody', 'this is not an HTTP request']
    const body = JSON.stringify(errorBody(problem(code, message), randomBytes(8).toString('hex')))
    const status = PROBLEMS[code]
    const lines = [
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
      'Connection: close',
      'Content-Type: application/json; charset=utf-8',
      `Content-Length: ${Buffer.byteLength(body)}`,
      ...Object.entries(headers()).map(([name, value]) => `${name}: ${value}`),
    ]
    socket.end(`${lines.join('\r\n')}\r\n\r\n${body}`)
  }
}
