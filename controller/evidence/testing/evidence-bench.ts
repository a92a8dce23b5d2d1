/** The intake over a real disk and database, and an agent's end of it whose line can be cut at any byte. */
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createSilentLogger } from '../../../shared/node/logger.ts'
import type { FileOffer } from '../../../shared/protocol/messages.ts'
import { HOST_A } from '../../correlate/testing/findings.ts'
import { createTestDomain } from '../../dispatch/testing/domain.ts'
import { openEvidence } from '../evidence.ts'
import type { Intake, IntakeOptions } from '../intake.ts'

const PATH = '/var/log/evidence.log'

export function createEvidenceBench() {
  const domain = createTestDomain()
  const folder = mkdtempSync(join(tmpdir(), 'cordon-evidence-'))
  domain.gateway.connect(HOST_A)
  const open = (limits: Partial<IntakeOptions> = {}, at = folder) => {
    const alerts = {
      raise: (kind: string, agentId: string) => void raised.push(`${kind} ${agentId.slice(0, 4)}`),
    }
    const room = openEvidence(at, {
      state: domain.state,
      alerts,
      announce: (change) => void domain.changes.push(change),
      logger: createSilentLogger(),
      nowMs: () => domain.clock.nowMs,
      audit: domain.audit,
      fileBytesMax: 1024 ** 3,
      bytesMax: 1024 ** 3,
      freeBytesMin: 0,
      ...limits,
    })
    intakes.push(room.intake)
    return room
  }
  const raised: string[] = []
  const intakes: Intake[] = []
  return {
    domain,
    folder,
    raised,
    open,
    /** A collection that was approved and sent to the agent; its command id. */
    asked(bytesMax = 1024 ** 3, agentId = HOST_A): string {
      const target = { kind: 'evidenceFile' as const, path: PATH, pathBytes: null }
      const plan = domain.dispatch.plan(
        { action: 'collectFile', args: { bytesMax }, targets: [{ agentId, target }], reason: 'test' },
        'ada@console',
      )
      if (!plan.ok) throw new Error(JSON.stringify(plan.error))
      const signature = domain.signature(plan.value, domain.ada)
      const approved = domain.dispatch.approve(plan.value.intentId, signature, 'ada@console')
      const id = approved.ok ? approved.value.actions[0]?.id : undefined
      if (id === undefined) throw new Error('not approved')
      return id
    },
    async [Symbol.asyncDispose]() {
      for (const intake of intakes) await intake.run(AbortSignal.abort())
      domain[Symbol.dispose]()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

export type EvidenceBench = ReturnType<typeof createEvidenceBench>

export function offerOf(
  commandId: string,
  content: Uint8Array,
  overrides: Partial<FileOffer> = {},
): FileOffer {
  return {
    kind: 'fileOffer',
    commandId,
    path: PATH,
    pathBytes: null,
    sizeBytes: content.length,
    sha256: createHash('sha256').update(content).digest('hex'),
    device: '1',
    inode: '2',
    mode: 0o100600,
    userId: 0,
    groupId: 0,
    links: 1,
    accessedNs: '0',
    modifiedNs: '0',
    changedNs: '0',
    bornNs: '0',
    copiedMs: 0,
    changedWhileRead: false,
    ...overrides,
  }
}
