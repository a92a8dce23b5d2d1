/** OpenAPI 3.1 from the table of routes: the same schemas that check the requests describe them. */
import type { FastifySchema } from 'fastify'
import { ErrorBody } from './problem.ts'
import type { Route } from './route.ts'

export function openApiInfo() {
  return {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Cordon',
        version: '1',
        description:
          'Automated incident response. Sessions are a cookie (changes repeat X-CSRF-Token) or a bearer token.',
      },
      components: {
        securitySchemes: {
          bearer: { type: 'http' as const, scheme: 'bearer' },
          cookie: { type: 'apiKey' as const, in: 'cookie', name: 'session' },
        },
      },
    },
  }
}

export function openApiSchema(route: Route): FastifySchema {
  return {
    operationId: route.name,
    summary: route.summary,
    description: route.access === 'anyone' ? 'Needs no sign-in.' : `Needs the role ${route.access}.`,
    tags: [route.path.split('/')[1] ?? 'api'],
    security: route.access === 'anyone' ? [] : [{ bearer: [] }, { cookie: [] }],
    ...(route.params ? { params: route.params } : {}),
    ...(route.query ? { querystring: route.query } : {}),
    ...(route.body ? { body: route.body } : {}),
    response: {
      200: route.live
        ? {
            description: 'A stream of changes.',
            content: { 'text/event-stream': { schema: route.response } },
          }
        : route.download
          ? {
              description: 'The bytes of the file. Their hash is in the header X-Cordon-Sha256.',
              content: { 'application/octet-stream': { schema: route.response } },
            }
          : { description: 'As asked.', ...route.response },
      '4xx': { description: 'Refused.', ...ErrorBody },
      '5xx': { description: 'Failed.', ...ErrorBody },
    },
  }
}
