/** An operator at a keyboard, for tests: runs the program in this process and keeps what it printed. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type MemoryController, PASSWORD } from '../../api/testing/memory-controller.ts'
import type { Role } from '../../operators/role.ts'
import type { Io } from '../command.ts'
import { createHome } from '../home.ts'
import { createOperatorKey } from '../operator-keys.ts'
import { runCordon } from '../run.ts'

export interface Result {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
  /** Prompts that were shown, in order. */
  readonly prompts: readonly string[]
  readonly json: () => unknown
}

export interface World {
  /** What is typed at each prompt; undefined: no terminal is there. */
  readonly typed?: readonly string[]
  readonly piped?: string
  readonly columns?: number
  readonly signal?: AbortSignal
  readonly environment?: Readonly<Record<string, string>>
  /** Called with each piece of output. */
  readonly onOutput?: (text: string) => void
}

export interface Operator extends Disposable {
  readonly home: string
  run(words: readonly string[], world?: World): Promise<Result>
}

/** Signs in with the role, and has a key that the controller knows. */
export async function createOperator(controller: MemoryController, role: Role = 'admin'): Promise<Operator> {
  const home = mkdtempSync(join(tmpdir(), 'cordon-cli-'))
  const operator: Operator = {
    home,
    run: (words, world = {}) => runAt(home, words, world),
    [Symbol.dispose]: () => rmSync(home, { recursive: true, force: true }),
  }
  await controller.operators.createUser(`${role}-user`, role, PASSWORD)
  const login = await operator.run(
    ['auth', 'login', '--url', controller.url, '--name', `${role}-user`, '--password-stdin'],
    { piped: `${PASSWORD}\n` },
  )
  if (login.exitCode !== 0) throw new Error(`no sign-in: ${login.stderr}`)
  const key = await createOperatorKey(createHome(home), 'test', null)
  controller.actionOptions.operatorKeys.push(key.publicKey)
  return operator
}

export async function runAt(home: string, words: readonly string[], world: World = {}): Promise<Result> {
  const output = { stdout: '', stderr: '' }
  const prompts: string[] = []
  const typed = [...(world.typed ?? [])]
  const sink = (name: 'stdout' | 'stderr') => ({
    write: (text: string) => {
      output[name] += text
      world.onOutput?.(text)
    },
    isTerminal: world.columns !== undefined,
    columns: world.columns ?? 80,
  })
  const io: Io = {
    stdout: sink('stdout'),
    stderr: sink('stderr'),
    stdin: {
      isTerminal: world.typed !== undefined,
      ask: async (prompt) => {
        prompts.push(prompt)
        return typed.shift() ?? null
      },
      readAll: async () => world.piped ?? '',
    },
    environment: { CORDON_CLI_HOME: home, CORDON_DEBUG: '1', ...world.environment },
    signal: world.signal ?? new AbortController().signal,
    clock: Date.now,
  }
  const exitCode = await runCordon(words, io)
  return { exitCode, ...output, prompts, json: () => JSON.parse(output.stdout) }
}
