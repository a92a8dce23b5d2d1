/** Request bodies and query strings on their way to the validator. */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { TObject } from 'typebox'
import { exceedsDepth } from '../../shared/protocol/parse.ts'

/** JSON alone, no deeper than the wire allows, without `__proto__` and `constructor` keys. */
export function acceptOnlyJson(app: FastifyInstance): void {
  const parse = app.getDefaultJsonParser('error', 'error')
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    const text = String(body)
    if (text === '') done(null, undefined)
    else if (exceedsDepth(text))
      done(Object.assign(new Error('the body nests too deep'), { statusCode: 400 }))
    else parse(request, text, done)
  })
}

/** A query string holds texts; the ones that the schema calls integers become integers, nothing else changes. */
export function readIntegers(request: FastifyRequest, schema: TObject): void {
  const query = request.query as Record<string, unknown>
  for (const [name, property] of Object.entries(schema.properties)) {
    const value = query[name]
    const isInteger = (property as { type?: unknown }).type === 'integer'
    if (isInteger && typeof value === 'string' && /^(0|[1-9][0-9]{0,15})$/.test(value))
      query[name] = Number(value)
  }
}
