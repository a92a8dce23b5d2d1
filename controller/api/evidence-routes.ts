/** Files that were collected from hosts: what there is, and the bytes. */
import Type from 'typebox'
import { Evidence } from '../evidence/record.ts'
import { answer, defineRoute, type Route, refuse } from './route.ts'
import { Closed, DownloadQuery, EvidenceList, EvidenceQuery } from './schemas.ts'

const params = Closed({ id: Type.String({ pattern: '^[0-9a-f]{32}$' }) })

export const EVIDENCE_ROUTES: readonly Route[] = [
  defineRoute(
    {
      method: 'GET',
      path: '/evidence',
      name: 'evidence',
      access: 'viewer',
      summary: 'Lists files that were collected from hosts, newest first, and those on their way.',
      query: EvidenceQuery,
      response: EvidenceList,
      csv: {
        list: 'evidence',
        columns: {
          id: 'id',
          hostName: 'hostName',
          state: 'state',
          path: 'path',
          sizeBytes: 'sizeBytes',
          sha256: 'sha256',
          collectedAt: 'collectedAt',
        },
      },
    },
    ({ services, query: { format: _format, ...filter } }) =>
      answer({ evidence: [...services.evidence.list(filter)] }),
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/evidence/:id',
      name: 'evidenceRecord',
      access: 'viewer',
      summary: 'One collected file: where it was, whose it was, its hash, and how much of it is here.',
      params,
      response: Evidence,
    },
    ({ services, params: { id } }) => {
      const evidence = services.evidence.get(id)
      return evidence
        ? answer(evidence)
        : refuse('notFound', `no file was collected by ${id}`, 'cordon file ls')
    },
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/evidence/:id/content',
      name: 'evidenceContent',
      // What was collected may be a secret of its host, so looking on is not enough.
      access: 'responder',
      summary: 'The bytes of a collected file, from `offset` on. Each time is written into the audit log.',
      params,
      query: DownloadQuery,
      response: Type.String(),
      download: true,
    },
    ({ services, params: { id }, query, by }) => {
      const offset = query.offset ?? 0
      const evidence = services.evidence.get(id)
      if (!evidence) return refuse('notFound', `no file was collected by ${id}`, 'cordon file ls')
      if (evidence.state !== 'complete') {
        return refuse('conflict', `the file is not whole: ${evidence.state}`, 'cordon file ls')
      }
      if (offset > evidence.sizeBytes) {
        return refuse('refused', `the file has ${evidence.sizeBytes} bytes, none from ${offset} on`)
      }
      const download = services.evidence.download(id, offset, by)
      if (!download) {
        return refuse(
          'notFound',
          'the bytes are not on this controller any more',
          'The folder `evidence` of its state has lost them.',
        )
      }
      const { sha256, bytes, open } = download
      return { kind: 'download', fileName: `evidence-${id}`, sha256, bytes, open }
    },
  ),
]
