/**
 * The console as it was built, read once into memory: an index and files whose names carry their hash. Nothing
 * of a request ever becomes a path on the disk.
 */
import { extname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { FastifyInstance } from 'fastify'
import { listFolder, readShipped, shippedFolder } from '../../shared/node/assets.ts'

export interface ConsoleFile {
  readonly bytes: Buffer
  /** Null where compressing gains nothing. */
  readonly gzipped: Buffer | null
  readonly type: string
}

export interface ConsoleFiles {
  readonly index: ConsoleFile
  /** By name; a name stands for one content for ever. */
  readonly assets: ReadonlyMap<string, ConsoleFile>
}

/** Addresses that the console itself makes something of; each is answered with the index. */
const CLIENT_ROUTES = ['/', '/sign-in', '/hosts', '/hosts/:id', '/incidents', '/incidents/:id'] as const

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.woff2': 'font/woff2',
}

/** Scripts and styles from here alone, none in the page, and no text that becomes markup. */
const CONSOLE_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "font-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ')

const IMMUTABLE = 'public, max-age=31536000, immutable'

/** Null when the console is not built. The build, or the package, puts it into its folder. */
export function consoleFiles(folder: string = shippedFolder('console')): ConsoleFiles | null {
  const read = (...names: readonly string[]) => {
    const path = join(folder, ...names)
    return consoleFile(path, readShipped(path))
  }
  try {
    if (!listFolder(folder).includes('index.html')) return null
    const names = listFolder(join(folder, 'assets')).filter((name) => extname(name) in TYPES)
    return {
      index: read('index.html'),
      assets: new Map(names.map((name) => [name, read('assets', name)] as const)),
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

function consoleFile(name: string, bytes: Buffer): ConsoleFile {
  const type = TYPES[extname(name)] ?? 'application/octet-stream'
  // Fonts are compressed already.
  return { bytes, type, gzipped: type.startsWith('text/') ? gzipSync(bytes, { level: 9 }) : null }
}

export function addConsole(app: FastifyInstance, files: ConsoleFiles): void {
  const options = { config: { access: 'anyone' as const }, schema: { hide: true } }
  for (const path of CLIENT_ROUTES) {
    app.get(path, options, async (request, reply) => {
      reply.header('content-security-policy', CONSOLE_POLICY)
      // The page may be kept, but is asked for anew each time: it names the files of this version.
      reply.header('cache-control', 'no-cache')
      return send(request.headers['accept-encoding'], reply, files.index)
    })
  }
  app.get('/assets/:name', options, async (request, reply) => {
    const file = files.assets.get((request.params as { name: string }).name)
    if (file === undefined) return reply.callNotFound()
    reply.header('cache-control', IMMUTABLE)
    return send(request.headers['accept-encoding'], reply, file)
  })
}

interface Reply {
  header(name: string, value: string): Reply
  type(type: string): Reply
  send(bytes: Buffer): unknown
}

function send(accepted: string | string[] | undefined, reply: Reply, file: ConsoleFile): unknown {
  reply.header('vary', 'accept-encoding')
  if (file.gzipped !== null && /\bgzip\b/.test(String(accepted ?? ''))) {
    return reply.header('content-encoding', 'gzip').type(file.type).send(file.gzipped)
  }
  return reply.type(file.type).send(file.bytes)
}
