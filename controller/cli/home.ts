/**
 * What the CLI keeps on the operator's machine: contexts (a controller's address and the session there), and
 * the folder of keys. Only its owner may read it.
 */
import { mkdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import Type, { type Static } from 'typebox'
import { writeFileDurably } from '../../shared/node/durable-file.ts'
import { readPrivateFile } from '../../shared/node/sealed-file.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import { EXIT, Failure } from './command.ts'

const closed = { additionalProperties: false } as const
const ContextEntry = Type.Object(
  {
    url: Type.String({ maxLength: 2_048 }),
    token: Type.Union([Type.String({ maxLength: 256 }), Type.Null()]),
    user: Type.Union([Type.String({ maxLength: 64 }), Type.Null()]),
    expiresAt: Type.Union([Type.String({ maxLength: 32 }), Type.Null()]),
    /** The fleet that this controller spoke for when it was first seen: intents of another one are not signed. */
    fleet: Type.Union([Type.String({ pattern: '^[0-9a-f]{32}$' }), Type.Null()]),
  },
  closed,
)

const CONTEXT_NAME = '^[a-z0-9][a-z0-9._-]{0,63}$'
const Contexts = Type.Object(
  {
    v: Type.Literal(1),
    current: Type.String({ pattern: CONTEXT_NAME }),
    contexts: Type.Record(Type.String({ pattern: CONTEXT_NAME }), ContextEntry, { maxProperties: 64 }),
  },
  closed,
)
type Contexts = Static<typeof Contexts>
const contextsCheck = compileSchema(Contexts)

export interface Home {
  readonly folder: string
  readonly keysFolder: string
  read(): Contexts
  write(contexts: Contexts): void
}

export function homeFolder(
  environment: Readonly<Record<string, string | undefined>>,
  asked?: string,
): string {
  const given = asked ?? environment['CORDON_CLI_HOME']
  if (given !== undefined && given !== '') return given
  const settings = environment['XDG_CONFIG_HOME'] || join(environment['HOME'] || homedir(), '.config')
  return join(settings, 'cordon')
}

export function createHome(folder: string): Home {
  const path = join(folder, 'contexts.json')
  return {
    folder,
    keysFolder: join(folder, 'keys'),
    read() {
      const text = readPrivateFile(path)
      if (!text.ok) {
        if (text.error.kind === 'missing') return { v: 1, current: 'default', contexts: {} }
        throw new Failure(EXIT.failed, 'contexts', text.error.reason)
      }
      const parsed = parseStrict(contextsCheck, text.value)
      if (parsed.ok) return parsed.value
      throw new Failure(
        EXIT.failed,
        'contexts',
        `${path} cannot be used: ${parsed.error.reason}`,
        'Remove it and sign in again.',
      )
    },
    write(contexts) {
      mkdirSync(folder, { recursive: true, mode: 0o700 })
      writeFileDurably(path, JSON.stringify(contexts), 0o600)
    },
  }
}
