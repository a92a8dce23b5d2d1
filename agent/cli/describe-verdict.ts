/** What `cordon-agent verify` found, for a person. */
import type { BufferVerdict } from '../buffer/verify.ts'

export function describeVerdict(file: string, verdict: BufferVerdict): string {
  switch (verdict.kind) {
    case 'whole':
      return (
        `${file} is whole: ${verdict.rows} rows of stream ${verdict.streamId} are as they were written; ` +
        `${verdict.absentRows} more were delivered and taken out, or dropped and told as lost`
      )
    case 'broken':
      return `${file} was CHANGED: class ${verdict.class}, row ${verdict.sequence}: ${verdict.reason}`
    case 'unreadable':
      return `${file} cannot be read: ${verdict.reason}`
  }
}
