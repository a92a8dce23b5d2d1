/** The room of collected files, joined: their disk, what takes them from agents, and what serves them to operators. */
import type { EvidenceService } from '../api/services.ts'
import { openEvidenceFiles } from './evidence-files.ts'
import { createEvidenceService } from './evidence-service.ts'
import { createIntake, type Intake, type IntakeOptions } from './intake.ts'

export interface EvidenceRoom {
  readonly intake: Intake
  readonly service: EvidenceService
}

/** Makes the folder when it is missing, and ends what a crash left in it. */
export function openEvidence(
  folder: string,
  options: Omit<IntakeOptions, 'files'> & Pick<Parameters<typeof createEvidenceService>[0], 'audit'>,
): EvidenceRoom {
  const files = openEvidenceFiles(folder)
  return {
    intake: createIntake({ ...options, files }),
    service: createEvidenceService({ state: options.state, files, audit: options.audit }),
  }
}
