/** The operator's signing keys, and the keyset that says which count. */
import { readKeyset } from '../action-flow.ts'
import { type Command, type CommandContext, EXIT, Failure, usage } from '../command.ts'
import { createOperatorKey, type KeyFacts, listOperatorKeys } from '../operator-keys.ts'

export const KEY_COMMANDS: readonly Command[] = [
  {
    name: 'keys ls',
    summary: 'list the keys on this machine and whether the keyset knows them',
    example: 'cordon keys ls',
    async run(context) {
      const { print, home } = context
      const trusted = await trustedClasses(context)
      const rows = listOperatorKeys(home).map((key) => ({ ...key, classes: trusted?.get(key.keyId) ?? [] }))
      print.list(
        rows,
        [
          { title: 'name', value: ({ name }) => name },
          { title: 'key id', value: ({ keyId }) => keyId.slice(0, 16) },
          { title: 'protected', value: ({ sealed }) => (sealed ? 'by passphrase' : 'NO') },
          {
            title: 'may sign',
            value: ({ classes }) =>
              trusted ? classes.map((each) => `class ${each}`).join(', ') || 'nothing yet' : '?',
          },
          { title: 'made', value: ({ createdAt }) => print.time(createdAt) },
        ],
        { name: ({ name }) => name, none: 'No keys: cordon keys create NAME' },
      )
      if (!trusted) context.note('Not signed in, so what the keyset says is not known.')
      return EXIT.ok
    },
  },
  {
    name: 'keys show',
    summary: 'show a key’s public half',
    example: 'cordon keys show ada',
    arguments: [{ form: '<name>', summary: 'name of the key' }],
    async run({ home, print, arguments: [name = ''] }) {
      const key = listOperatorKeys(home).find((each) => each.name === name)
      if (!key) throw new Failure(EXIT.notFound, 'notFound', `there is no key ${name} here`, 'cordon keys ls')
      print.record(key, KEY_FIELDS, key.name)
      return EXIT.ok
    },
  },
  {
    name: 'keys create',
    summary: 'make an Ed25519 key to sign actions with',
    example: 'cordon keys create ada',
    arguments: [{ form: '<name>', summary: 'name of the key' }],
    options: [
      { flags: '--no-passphrase', summary: 'keep it in clear: whoever reads the file can sign' },
      { flags: '--passphrase-stdin', summary: 'read the passphrase from standard input' },
    ],
    async run(context) {
      const {
        io,
        home,
        print,
        arguments: [name = ''],
      } = context
      const passphrase = context.options.has('noPassphrase') ? null : await newPassphrase(context)
      const key = await createOperatorKey(home, name, passphrase, new Date(io.clock()))
      if (passphrase === null) {
        io.stderr.write(
          'WARNING: this key has NO passphrase. Whoever can read its file can sign actions on hosts.\n',
        )
      }
      context.note(
        `The key is made; it counts once the keyset holds it, which the offline root must sign. On the controller:\n` +
          `  cordon-controller keyset add --name ${key.name} --public-key ${key.publicKey} --classes C`,
      )
      print.record(key, KEY_FIELDS, key.name)
      return EXIT.ok
    },
  },
]

const KEY_FIELDS = [
  { title: 'Name', value: (key: KeyFacts) => key.name },
  { title: 'Key id', value: (key: KeyFacts) => key.keyId },
  { title: 'Public key', value: (key: KeyFacts) => key.publicKey },
  { title: 'Protected', value: (key: KeyFacts) => (key.sealed ? 'by passphrase' : 'NO') },
]

async function newPassphrase({ io, options }: CommandContext): Promise<string> {
  const mend = 'Type it, pipe it with --passphrase-stdin, or say --no-passphrase.'
  if (options.has('passphraseStdin')) {
    const piped = (await io.stdin.readAll()).replace(/\r?\n$/, '')
    if (piped === '') throw usage('standard input holds no passphrase', mend)
    return piped
  }
  const typed = io.stdin.isTerminal ? await io.stdin.ask('Passphrase: ', true) : null
  if (typed === null || typed === '') throw usage('a passphrase is needed', mend)
  if ((await io.stdin.ask('Again: ', true)) !== typed) throw usage('the two passphrases differ')
  return typed
}

async function trustedClasses(context: CommandContext): Promise<Map<string, readonly string[]> | undefined> {
  const { contexts } = context.home.read()
  if (!contexts[context.contextName]?.token) return undefined
  try {
    const keyset = await readKeyset(context)
    return keyset && new Map(keyset.operators.map(({ keyId, classes }) => [keyId, classes]))
  } catch {
    return undefined
  }
}
