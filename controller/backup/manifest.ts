/** What a backup holds: its first member, against which every other one is checked. */
import Type, { type Static } from 'typebox'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import { BackupError } from './backup-error.ts'

/** Ten years of hourly event files fit in twice. */
const MEMBERS_MAX = 200_000
export const MANIFEST_NAME = 'manifest.json'
export const MANIFEST_BYTES_MAX = 64 * 1024 * 1024

const EVIDENCE_PART = '[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}'
/** The only names that are put on disk: nothing that leads out of the folder, and nothing unknown. */
const MEMBER_NAME = [
  '(state|pki|operators)\\.db',
  'authority/(authority|keyset|online-keys)\\.json',
  'authority/root\\.pem',
  'events/events-[0-9]{8}T[0-9]{2}\\.db',
  `evidence(/${EVIDENCE_PART}){1,4}`,
].join('|')
export const MEMBER_PATTERN = `^(${MEMBER_NAME})$`

/** Without these there is no controller. */
const REQUIRED_MEMBERS = [
  'state.db',
  'pki.db',
  'operators.db',
  'authority/authority.json',
  'authority/keyset.json',
  'authority/online-keys.json',
  'authority/root.pem',
] as const

const Hash = Type.String({ pattern: '^[0-9a-f]{64}$' })
const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const closed = { additionalProperties: false } as const

const Manifest = Type.Object(
  {
    v: Type.Literal(1),
    controllerVersion: Type.String({ maxLength: 64 }),
    createdMs: Count,
    fleet: Type.String({ pattern: '^[0-9a-f]{32}$' }),
    epoch: Count,
    keysetVersion: Count,
    auditEntries: Count,
    /** Hash of the last audit entry: what an echo of the log kept elsewhere must show up to here. */
    auditHead: Hash,
    /** Whether stored events are in it. */
    events: Type.Boolean(),
    evidence: Type.Boolean(),
    members: Type.Array(
      Type.Object(
        { name: Type.String({ maxLength: 900, pattern: MEMBER_PATTERN }), bytes: Count, sha256: Hash },
        closed,
      ),
      { maxItems: MEMBERS_MAX },
    ),
  },
  closed,
)
export type Manifest = Static<typeof Manifest>
export type Member = Manifest['members'][number]
const manifestCheck = compileSchema(Manifest)

/** Throws a `BackupError` when it is not one, names a member twice, or lacks what a controller needs. */
export function parseManifest(text: string): Manifest {
  const parsed = parseStrict(manifestCheck, text, MANIFEST_BYTES_MAX)
  if (!parsed.ok) {
    throw new BackupError(
      `the backup's manifest is not valid at ${parsed.error.path || '/'}: ${parsed.error.reason}`,
    )
  }
  const names = new Set(parsed.value.members.map(({ name }) => name))
  if (names.size < parsed.value.members.length) throw new BackupError('the backup names a member twice')
  const missing = REQUIRED_MEMBERS.filter((name) => !names.has(name))
  if (missing.length > 0) throw new BackupError(`the backup lacks ${missing.join(', ')}`)
  return parsed.value
}

export function totalBytes(manifest: Manifest): number {
  return manifest.members.reduce((sum, { bytes }) => sum + bytes, 0)
}
