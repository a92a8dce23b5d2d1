/** Signing in and out, contexts, and the operators. */
import { Done, SessionAnswer, UserAnswer, Users } from '../../api/schemas.ts'
import { PASSWORD_CHARACTERS_MIN, passwordProblem } from '../../operators/password.ts'
import { ROLES } from '../../operators/role.ts'
import { fleetOf, readKeyset } from '../action-flow.ts'
import { type Command, type CommandContext, EXIT, Failure, usage } from '../command.ts'
import { printable } from '../printable.ts'

const PASSWORD_ATTEMPTS = 3
const PASSWORD_STDIN = { flags: '--password-stdin', summary: 'read the password from standard input' }

export const AUTH_COMMANDS: readonly Command[] = [
  {
    name: 'auth login',
    summary: 'sign in to a controller, or make its first administrator with the one-time code',
    example: 'cordon auth login --url http://localhost:7800 --name ada',
    options: [
      { flags: '--name <name>', summary: 'name of the operator' },
      { flags: '--first <code>', summary: 'one-time code that the controller printed' },
      PASSWORD_STDIN,
    ],
    run: logIn,
  },
  {
    name: 'auth status',
    summary: 'who is signed in, where, and until when',
    example: 'cordon auth status --json',
    async run(context) {
      const session = await context.client().get('/auth/session', SessionAnswer)
      const shown = {
        context: context.contextName,
        url: context.url,
        name: session.name,
        role: session.role,
        expiresAt: session.expiresAt,
      }
      context.print.record(
        shown,
        [
          { title: 'Context', value: (of) => of.context },
          { title: 'Controller', value: (of) => of.url },
          { title: 'Operator', value: (of) => of.name },
          { title: 'Role', value: (of) => of.role },
          { title: 'Until', value: (of) => context.print.time(of.expiresAt) },
        ],
        session.name,
      )
      return EXIT.ok
    },
  },
  {
    name: 'auth logout',
    summary: 'end the session, here and at the controller',
    example: 'cordon auth logout',
    async run(context) {
      const contexts = context.home.read()
      const entry = contexts.contexts[context.contextName]
      if (!entry?.token) throw new Failure(EXIT.auth, 'unauthenticated', 'not signed in')
      try {
        await context.client().send('POST', '/auth/logout', Done)
      } catch (error) {
        // A session that is over at the controller is over.
        if (!(error instanceof Failure && error.exitCode === EXIT.auth)) throw error
      } finally {
        contexts.contexts[context.contextName] = { ...entry, token: null, user: null, expiresAt: null }
        context.home.write(contexts)
      }
      context.note('Signed out.')
      return EXIT.ok
    },
  },
  {
    name: 'context ls',
    summary: 'list the controllers that this machine knows',
    example: 'cordon context ls',
    async run({ home, print }) {
      const { current, contexts } = home.read()
      const rows = Object.entries(contexts).map(([name, { url, user, expiresAt, fleet }]) => ({
        name,
        current: name === current,
        url,
        user,
        expiresAt,
        fleet,
      }))
      print.list(
        rows,
        [
          { title: '', value: (row) => (row.current ? '*' : '') },
          { title: 'name', value: (row) => row.name },
          { title: 'controller', value: (row) => row.url, gives: true },
          { title: 'operator', value: (row) => row.user },
          { title: 'until', value: (row) => print.time(row.expiresAt) },
          { title: 'fleet', value: (row) => row.fleet, wide: true },
        ],
        { name: (row) => row.name, none: 'No contexts: cordon auth login' },
      )
      return EXIT.ok
    },
  },
  {
    name: 'context use',
    summary: 'choose the controller that commands go to',
    example: 'cordon context use lab',
    arguments: [{ form: '<name>', summary: 'name of the context' }],
    async run({ home, arguments: [name = ''], note }) {
      const contexts = home.read()
      if (!Object.hasOwn(contexts.contexts, name)) {
        throw new Failure(EXIT.notFound, 'notFound', `there is no context ${printable(name)}`)
      }
      home.write({ ...contexts, current: name })
      note(`Commands go to ${contexts.contexts[name]?.url}.`)
      return EXIT.ok
    },
  },
  {
    name: 'context rm',
    summary: 'forget a controller, its session here and the fleet it spoke for',
    example: 'cordon context rm lab',
    arguments: [{ form: '<name>', summary: 'name of the context' }],
    async run({ home, arguments: [name = ''], note }) {
      const contexts = home.read()
      if (!Object.hasOwn(contexts.contexts, name)) {
        throw new Failure(EXIT.notFound, 'notFound', `there is no context ${printable(name)}`)
      }
      delete contexts.contexts[name]
      home.write(contexts)
      note(`Forgot ${name}.`)
      return EXIT.ok
    },
  },
  {
    name: 'user ls',
    summary: 'list the operators',
    example: 'cordon user ls',
    async run({ client, print }) {
      const { users } = await client().show('/users', Users)
      print.list(
        users,
        [
          { title: 'name', value: ({ name }) => name },
          { title: 'role', value: ({ role }) => role },
          { title: 'since', value: ({ createdAt }) => print.time(createdAt) },
          {
            title: 'disabled',
            value: ({ disabledAt }) => (disabledAt === null ? '-' : print.time(disabledAt)),
          },
        ],
        { name: ({ name }) => name, none: 'No operators.' },
      )
      return EXIT.ok
    },
  },
  {
    name: 'user create',
    summary: 'make an operator',
    example: 'cordon user create grace --role responder',
    arguments: [{ form: '<name>', summary: 'name to sign in with' }],
    options: [{ flags: '--role <role>', summary: 'what they may do', choices: ROLES }, PASSWORD_STDIN],
    async run(context) {
      const [name = ''] = context.arguments
      const role = ROLES.find((each) => each === context.options.required('role'))
      if (!role) throw usage(`--role is one of ${ROLES.join(', ')}`)
      const password = await newPassword(context, name)
      const user = await context.client().send('POST', '/users', UserAnswer, { name, role, password })
      context.note(`Made ${printable(user.name)}, ${user.role}.`)
      context.print.block(user, [], user.name)
      return EXIT.ok
    },
  },
  {
    name: 'user disable',
    summary: 'end an operator’s right to sign in, and their sessions at once',
    example: 'cordon user disable grace',
    arguments: [{ form: '<name>', summary: 'name of the operator' }],
    async run(context) {
      const [name = ''] = context.arguments
      const user = await context
        .client()
        .send('POST', `/users/${encodeURIComponent(name)}/disable`, UserAnswer)
      context.note(`${printable(user.name)} cannot sign in any more. Take their key out of the keyset, too.`)
      context.print.block(user, [], user.name)
      return EXIT.ok
    },
  },
]

async function logIn(context: CommandContext) {
  const { options, home, contextName, url, note } = context
  const code = options.text('first')
  const name = options.text('name') ?? (await ask(context, 'Name: ', false, '--name is needed'))
  const password =
    code === undefined ? await readPassword(context, 'Password: ') : await newPassword(context, name)
  const client = context.client()
  const session =
    code === undefined
      ? await client.send('POST', '/auth/login', SessionAnswer, { name, password, kind: 'bearer' })
      : await client.send('POST', '/auth/first', SessionAnswer, { code, name, password, kind: 'bearer' })
  if (session.token === null)
    throw new Failure(EXIT.failed, 'unexpectedAnswer', 'the controller gave no session')
  const contexts = home.read()
  const before = contexts.contexts[contextName]
  contexts.contexts[contextName] = {
    url,
    token: session.token,
    user: session.name,
    expiresAt: session.expiresAt,
    fleet: before?.url === url ? before.fleet : null,
  }
  home.write({ ...contexts, current: contextName })
  note(
    `Signed in to ${url} as ${printable(session.name)} (${session.role}) until ${context.print.time(session.expiresAt)}.`,
  )
  await rememberFleet(context)
  return EXIT.ok
}

/** The fleet of the first sign-in is the one that is signed for from then on. */
async function rememberFleet(context: CommandContext): Promise<void> {
  const { io, url, contextName } = context
  const keyset = await readKeyset(context).catch(() => undefined)
  if (!keyset || (await fleetOf(context)) === keyset.fleet) return
  io.stderr.write(
    `Warning: ${url} spoke for another fleet before. Nothing will be signed for it. If that is meant: cordon context rm ${contextName}\n`,
  )
}

/** Asks anew for what is too short or mistyped: whoever sits there need not begin again. */
async function newPassword(context: CommandContext, name: string): Promise<string> {
  const prompt = `New password (${PASSWORD_CHARACTERS_MIN} characters or more): `
  if (context.options.has('passwordStdin')) return readPassword(context, prompt)
  for (let attempt = 1; ; attempt += 1) {
    const password = await readPassword(context, prompt)
    const problem =
      passwordProblem(password, name) ??
      ((await readPassword(context, 'Again: ')) === password ? undefined : 'the two passwords differ')
    if (problem === undefined) return password
    if (attempt === PASSWORD_ATTEMPTS) throw usage(problem)
    context.io.stderr.write(`${problem.charAt(0).toUpperCase()}${problem.slice(1)}. Once more.\n`)
  }
}

async function readPassword(context: CommandContext, prompt: string): Promise<string> {
  if (context.options.has('passwordStdin')) {
    const password = (await context.io.stdin.readAll()).replace(/\r?\n$/, '')
    if (password === '') throw usage('standard input holds no password')
    return password
  }
  return ask(context, prompt, true, 'the password is typed, or piped with --password-stdin')
}

async function ask(
  { io }: CommandContext,
  prompt: string,
  hidden: boolean,
  otherwise: string,
): Promise<string> {
  const typed = io.stdin.isTerminal ? await io.stdin.ask(prompt, hidden) : null
  if (typed === null || typed === '') throw usage(otherwise)
  return hidden ? typed : typed.trim()
}
