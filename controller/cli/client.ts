/** The controller's API as functions. What comes back is held against its schema before anything uses it. */
import type { Static, TSchema } from 'typebox'
import { compileSchema } from '../../shared/protocol/parse.ts'
import { ErrorBody } from '../api/problem.ts'
import { API_PREFIX } from '../api/schemas.ts'
import { EXIT, type ExitCode, Failure } from './command.ts'
import { printable } from './printable.ts'

const ANSWER_BYTES_MAX = 256 * 1024 ** 2
const errorCheck = compileSchema(ErrorBody)

export interface ClientOptions {
  readonly url: string
  readonly token: string | null
  readonly timeoutMs: number
  readonly signal: AbortSignal
  /** Told of each request, with `-v`. */
  readonly trace?: (line: string) => void
  /** Told when something that is only shown is not as described. */
  readonly warn: (line: string) => void
}

interface Asked {
  readonly query?: Readonly<Record<string, string | number | undefined>>
  readonly body?: unknown
}

export interface Client {
  /** Reads what is only shown: a row that is longer than described is no reason to show nothing. */
  show<Schema extends TSchema>(path: string, schema: Schema, query?: Asked['query']): Promise<Static<Schema>>
  /** Reads what is acted on. */
  get<Schema extends TSchema>(path: string, schema: Schema, query?: Asked['query']): Promise<Static<Schema>>
  send<Schema extends TSchema>(
    method: 'POST' | 'PUT',
    path: string,
    schema: Schema,
    body?: unknown,
  ): Promise<Static<Schema>>
  /** Bytes as they come. The time limit is for each piece of them, not for the whole. */
  download(path: string, query?: Asked['query']): AsyncGenerator<Uint8Array>
  /** The live changes, one JSON value each, until the signal aborts or the controller closes. */
  stream(path: string, signal: AbortSignal): AsyncGenerator<unknown>
}

/** A session is worth as much as a password: it does not travel in clear. */
export function checkUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (!url || !['http:', 'https:'].includes(url.protocol) || url.username !== '' || url.search !== '') {
    throw new Failure(
      EXIT.usage,
      'usage',
      `${printable(text)} is not an address`,
      'As in https://controller.example',
    )
  }
  const isLoopback = /^(localhost|127(\.[0-9]+){3}|\[::1\])$/.test(url.hostname)
  if (url.protocol === 'http:' && !isLoopback) {
    throw new Failure(
      EXIT.usage,
      'usage',
      `http to ${url.hostname} would send the session in clear`,
      'Use https, or a tunnel to localhost.',
    )
  }
  return url.origin
}

export function createClient(options: ClientOptions): Client {
  const request = async (
    method: string,
    path: string,
    asked: Asked,
    signal: AbortSignal,
  ): Promise<Response> => {
    const url = new URL(`${options.url}${API_PREFIX}${path}`)
    for (const [name, value] of Object.entries(asked.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value))
    }
    const begunMs = performance.now()
    try {
      const response = await fetch(url, {
        method,
        headers: {
          accept: 'application/json',
          ...(asked.body === undefined ? {} : { 'content-type': 'application/json' }),
          ...(options.token === null ? {} : { authorization: `Bearer ${options.token}` }),
        },
        ...(asked.body === undefined ? {} : { body: JSON.stringify(asked.body) }),
        // Nobody but the controller that was meant gets the session.
        redirect: 'error',
        signal,
      })
      options.trace?.(`${method} ${path} ${response.status} ${Math.round(performance.now() - begunMs)} ms`)
      return response
    } catch (error) {
      throw unreachable(error, options)
    }
  }
  const bounded = () => AbortSignal.any([options.signal, AbortSignal.timeout(options.timeoutMs)])
  const call = async <Schema extends TSchema>(
    method: string,
    path: string,
    schema: Schema,
    asked: Asked,
    onlyShown = false,
  ): Promise<Static<Schema>> => {
    const response = await request(method, path, asked, bounded())
    const text = await readText(response, options)
    const value = parseJson(text)
    if (!response.ok) throw refusal(response.status, value, options)
    const check = compileSchema(schema)
    if (check.Check(value)) return value
    const [first] = check.Errors(value)
    const where = `${first?.instancePath ?? ''} ${first?.message ?? ''}`.trim()
    const message = `the controller's answer is not as described: ${where}`
    if (!onlyShown || typeof value !== 'object' || value === null) {
      throw new Failure(EXIT.failed, 'unexpectedAnswer', message)
    }
    options.warn(message)
    return value as Static<Schema>
  }

  return {
    show: (path, schema, query) => call('GET', path, schema, query ? { query } : {}, true),
    get: (path, schema, query) => call('GET', path, schema, query ? { query } : {}),
    send: (method, path, schema, body) => call(method, path, schema, body === undefined ? {} : { body }),
    async *download(path, query) {
      const stalled = new AbortController()
      const limit = setTimeout(
        () => stalled.abort(new DOMException('no answer', 'TimeoutError')),
        options.timeoutMs,
      )
      try {
        const signal = AbortSignal.any([options.signal, stalled.signal])
        const response = await request('GET', path, query ? { query } : {}, signal)
        if (!response.ok)
          throw refusal(response.status, parseJson(await readText(response, options)), options)
        for await (const chunk of response.body ?? []) {
          limit.refresh()
          yield chunk
        }
      } catch (error) {
        throw unreachable(error, options)
      } finally {
        clearTimeout(limit)
      }
    },
    async *stream(path, signal) {
      const response = await request('GET', path, {}, AbortSignal.any([options.signal, signal]))
      if (!response.ok || !response.body)
        throw refusal(response.status, parseJson(await readText(response, options)), options)
      const decoder = new TextDecoder()
      let pending = ''
      try {
        for await (const chunk of response.body) {
          pending += decoder.decode(chunk, { stream: true })
          if (pending.length > 1024 ** 2) return
          const blocks = pending.split('\n\n')
          pending = blocks.pop() ?? ''
          for (const block of blocks) {
            const data = /^data: (.*)$/m.exec(block)?.[1]
            if (data !== undefined) yield parseJson(data)
          }
        }
      } catch (error) {
        if (!signal.aborted && options.signal.aborted) throw unreachable(error, options)
      }
    },
  }
}

async function readText(response: Response, options: ClientOptions): Promise<string> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  try {
    for await (const chunk of response.body ?? []) {
      bytes += chunk.byteLength
      if (bytes > ANSWER_BYTES_MAX)
        throw new Failure(EXIT.failed, 'unexpectedAnswer', 'the answer is too large')
      chunks.push(chunk)
    }
  } catch (error) {
    throw unreachable(error, options)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}

const EXIT_OF_STATUS: Readonly<Record<number, ExitCode>> = {
  401: EXIT.auth,
  403: EXIT.auth,
  404: EXIT.notFound,
}

function refusal(status: number, value: unknown, { token, url }: ClientOptions): Failure {
  const exitCode = EXIT_OF_STATUS[status] ?? EXIT.failed
  if (!errorCheck.Check(value)) {
    return new Failure(
      exitCode,
      'unexpectedAnswer',
      `the controller answered ${status}`,
      'Is this a Cordon controller?',
    )
  }
  const { code, message, hint, requestId } = value.error
  if (code === 'unauthenticated') {
    const said = token === null ? `not signed in to ${url}` : `the session at ${url} is over`
    return new Failure(exitCode, code, said, 'Sign in: cordon auth login', requestId)
  }
  return new Failure(exitCode, code, message, hint, requestId)
}

const WHY_UNREACHABLE: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ERR_SSL_WRONG_VERSION_NUMBER: 'it does not speak https',
  ERR_SSL_PACKET_LENGTH_TOO_LONG: 'it does not speak https',
  UND_ERR_SOCKET: 'what listens there does not speak http',
  ECONNRESET: 'the connection was cut',
  ENOTFOUND: 'there is no host of that name',
  EHOSTUNREACH: 'there is no way to that host',
  ETIMEDOUT: 'no answer',
  UND_ERR_CONNECT_TIMEOUT: 'no answer',
}

function unreachable(error: unknown, options: ClientOptions): Failure {
  if (error instanceof Failure) return error
  if (options.signal.aborted) return new Failure(EXIT.interrupted, 'interrupted', 'interrupted')
  const { name, cause } = error as { name?: string; cause?: { code?: string; message?: string } }
  if (name === 'TimeoutError') {
    const seconds = options.timeoutMs / 1_000
    return new Failure(
      EXIT.failed,
      'timeout',
      `no answer from ${options.url} within ${seconds} s`,
      'See --timeout.',
    )
  }
  const code = cause?.code ?? ''
  const why = WHY_UNREACHABLE[code] ?? (code || (cause?.message ?? (error as Error).message))
  return new Failure(
    EXIT.failed,
    'unreachable',
    `${options.url} cannot be reached: ${why}`,
    'Is the controller running? Is the address right (--url, `cordon context ls`)?',
  )
}
