import { spawn } from 'node:child_process'
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { AT, BOOT_ID, ENTITY_ID, EVENTS, FILE_PATH, SHA256 } from '../api/testing/fixtures.ts'
import { type MemoryController, PASSWORD, startMemoryController } from '../api/testing/memory-controller.ts'
import type { TimelineEntry } from '../incidents/incident.ts'
import { COMMANDS } from './run.ts'
import { createOperator, type Operator, runAt } from './testing/operator.ts'

let controller: MemoryController
let operator: Operator
beforeAll(async () => {
  controller = await startMemoryController()
  operator = await createOperator(controller)
})
afterAll(async () => {
  operator[Symbol.dispose]()
  await controller[Symbol.asyncDispose]()
})

const kill = ['proc', 'kill', ENTITY_ID, '--reason', 'test', '--incident', 'INC-1']

test('each command has help with an example of itself', async () => {
  for (const { name, example } of COMMANDS) {
    const help = await operator.run([...name.split(' '), '--help'])
    expect(help.exitCode, name).toBe(0)
    expect(help.stdout).toContain(example)
    expect(example, name).toContain(`cordon ${name}`)
  }
})

test.each([
  ['host ls', /web-1 +a1b2c3d4 +connected +2026-01-02 03:04:05Z +process/],
  ['host get web-1', /Sensor process +in force: kernel events; seen 10, lost 0/],
  ['host get a1b2', /^Host +web-1$/m],
  ['incident ls', /INC-1 +▲ high +open +Test file dropped by sh +web-1/],
  ['incident get inc-1', /Severity +▲ high/],
  ['incident get 1', /DETECTIONS\n {2}▲ high +Test file \(yara\) by sh \(pid 4242\) on web-1/],
  ['incident get INC-1', /cordon proc kill a1b2c3d4.0badcafe.4242.987654 --tree --incident INC-1/],
  ['incident timeline 1', /detection +web-1 +Test file/],
  ['detection ls --incident INC-1', /▲ high .* Test file +yara +web-1 +INC-1/],
  ['detection ls INC-1', /Test file/],
  ['action ls INC-1', /^$/],
  ['detection ls', /Test file/],
  ['proc tree INC-1', /^1 {2}\/sbin\/init/],
  ['proc tree --incident INC-1', /^1 {2}\/sbin\/init.*\n└─ 4242 {2}\/usr\/bin\/sh.*▲ Test file/m],
  [`proc tree ${ENTITY_ID}`, /^4242 {2}sh -c payload/m],
  ['event query --action exec --host web-1', /web-1 +exec +\/usr\/bin\/sh +sh -c payload/],
  ['event query --from 1h --oldest-first', /exec/],
  ['audit --limit 5', /auth.login/],
  ['user ls', /admin-user +admin/],
  ['auth status', /Operator +admin-user/],
  ['context ls', /\* +default +http:/],
  ['keys ls', /test +[0-9a-f]{16} +NO +class C/],
  ['keys show test', /Public key +[0-9a-f]{64}/],
  ['completion bash', /complete -F _cordon cordon/],
  ['completion zsh', /bashcompinit\n_cordon\(\)/],
  ['completion fish', /__fish_seen_subcommand_from proc; and not .* -a kill -d 'end processes; final'/],
] as const)('%s prints what it is for', async (words, pattern) => {
  const result = await operator.run(words.split(' '))
  expect(result.exitCode, result.stderr).toBe(0)
  expect(result.stdout).toMatch(pattern)
  if (!words.startsWith('completion')) {
    const json = await operator.run([...words.split(' '), '--json'])
    expect(json.exitCode, json.stderr).toBe(0)
    expect(() => json.json()).not.toThrow()
  }
})

test('fields can be chosen, and names alone fit pipes', async () => {
  expect((await operator.run(['incident', 'ls', '--json=id,status'])).json()).toEqual([
    { id: 'INC-1', status: 'open' },
  ])
  const events = await operator.run(['event', 'query', '--action', 'exec', '--json=cursor,event.process.pid'])
  expect(events.json()).toEqual([{ cursor: '0001', 'event.process.pid': 4242 }])
  expect((await operator.run(['incident', 'ls', '-o', 'name'])).stdout).toBe('INC-1\n')
})

test('flags for all commands may stand before the noun', async () => {
  expect((await operator.run(['--json=id', 'incident', 'ls'])).json()).toEqual([{ id: 'INC-1' }])
  expect((await operator.run(['--url', 'http://127.0.0.1:1', 'audit'])).stderr).toMatch(
    /127\.0\.0\.1:1 cannot be reached/,
  )
  const both = await operator.run(['-o', 'wide', 'incident', 'ls', '-o', 'name'])
  expect(both.stdout).toBe('INC-1\n')
})

test('a list as CSV has all columns whole, and nothing that a spreadsheet would run', async () => {
  const { exitCode, stdout } = await operator.run(['detection', 'ls', '--csv'])
  expect(exitCode).toBe(0)
  const [head, row] = stdout.split('\r\n')
  expect(head).toContain('"severity","time","rule","engine"')
  expect(row).toMatch(/^"high",/)
  expect(row).toContain(`"'=cmd|""/c calc""!A1 \\x1b[2J`)
  expect((await operator.run(['incident', 'get', 'INC-1', '--csv'])).exitCode).toBe(2)
  expect((await operator.run(['host', 'get', 'web-1', '-o', 'csv'])).stdout).toMatch(/^"host","agent"/)
})

test('what went wrong names the command whose help to read', async () => {
  expect((await operator.run(['incident', 'get'])).stderr).toContain('cordon incident get --help')
  expect((await operator.run(['incdent'])).stderr).toMatch(/Did you mean incident\?\)?\nSee: cordon --help/)
})

test('a record that is longer than described is still shown, with a warning', async () => {
  const { timeline } = controller.services.incidents
  const summary = 'x'.repeat(5_000)
  const entry: TimelineEntry = { at: AT, until: null, kind: 'note', hostName: null, summary, reference: null }
  Object.assign(controller.services.incidents, { timeline: async () => [entry] })
  const result = await operator.run(['incident', 'timeline', 'INC-1'])
  Object.assign(controller.services.incidents, { timeline })
  expect([result.exitCode, result.stdout]).toEqual([0, expect.stringContaining('xxxxx')])
  expect(result.stderr).toMatch(/Warning: .* not as described: \/entries\/0\/summary/)
})

test('an empty list says so on standard error and leaves standard output empty', async () => {
  const result = await operator.run(['action', 'ls', '--state', 'reverted'])
  expect([result.exitCode, result.stdout, result.stderr]).toEqual([0, '', 'No actions.\n'])
  expect((await operator.run(['action', 'ls', '--state', 'reverted', '--json'])).json()).toEqual([])
})

test('times carry their zone, and another one can be asked for', async () => {
  const there = await operator.run(['incident', 'timeline', 'INC-1', '--tz', 'Asia/Kolkata'])
  expect(there.stdout).toContain('2026-01-02 08:34:05.678+05:30')
  expect((await operator.run(['incident', 'ls', '--tz', 'Nowhere/Land'])).exitCode).toBe(2)
})

test('a table fits a narrow terminal, and a pipe gets all of it', async () => {
  const narrow = await operator.run(['detection', 'ls', '-o', 'wide', '--no-color'], { columns: 100 })
  for (const line of narrow.stdout.split('\n')) expect([...line].length).toBeLessThanOrEqual(100)
  expect(narrow.stdout).toContain('…')
  expect((await operator.run(['detection', 'ls'])).stdout).not.toContain('…')
})

test('what a hostile host reports cannot command the terminal', async () => {
  for (const words of [
    ['detection', 'ls'],
    ['detection', 'ls', '--json'],
    ['proc', 'tree', '--incident', 'INC-1'],
  ]) {
    const { stdout, stderr } = await operator.run(words)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there.
    expect(stdout + stderr).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e]/)
  }
  expect((await operator.run(['detection', 'ls'])).stdout).toContain('\\x1b[2J')
})

test('a kill is signed after a confirmation that names the host, and followed to its end', async () => {
  const result = await operator.run([...kill, '--tree', '--wait'], { typed: ['y'] })
  expect(result.exitCode, result.stderr).toBe(0)
  expect(result.prompts).toEqual(['Sign killProcess on web-1? [y/N] '])
  expect(result.stderr).toMatch(/To be signed {2}killProcess, class C/)
  expect(result.stderr).toContain(
    `process 4242, started at tick 987654 of boot ${BOOT_ID}, SHA-256 ${SHA256}`,
  )
  for (const state of ['queued', 'sent', 'received', 'applied', 'probed', 'done']) {
    expect(result.stderr).toContain(state)
  }
  expect(result.stdout).toMatch(/done +killProcess +pid 4242 with its descendants +web-1/)
  expect(controller.actions.approvals).toHaveLength(1)
})

test('a file is quarantined by the identity that was last read of it', async () => {
  const result = await operator.run([
    ...[
      'file',
      'quarantine',
      '--host',
      'web-1',
      '--path',
      FILE_PATH,
      '--reason',
      'test',
      '--yes',
      '--wait',
      '--json',
    ],
  ])
  expect(result.exitCode, result.stderr).toBe(0)
  expect(result.json()).toMatchObject([
    { state: 'done', target: { kind: 'file', path: FILE_PATH, device: '2049', inode: '99', sha256: SHA256 } },
  ])
})

test('a file that was never read, a host and a process that are not known are not found', async () => {
  const unread = ['file', 'quarantine', '--host', 'web-1', '--path', '/never', '--reason', 'x', '--yes']
  const refused = await operator.run(unread)
  expect([refused.exitCode, refused.stderr]).toEqual([
    5,
    expect.stringContaining('cordon host scan web-1 /never'),
  ])
  expect((await operator.run(['host', 'get', 'nowhere'])).exitCode).toBe(5)
  expect((await operator.run(['incident', 'get', 'INC-9'])).exitCode).toBe(5)
  expect((await operator.run(['action', 'get', 'abcd1234'])).exitCode).toBe(5)
  const earlierBoot = await operator.run(['proc', 'kill', 'a1b2c3d4.11111111.7.1', '--reason', 'x', '--yes'])
  expect([earlierBoot.exitCode, earlierBoot.stderr]).toEqual([5, expect.stringContaining('earlier boot')])
  const init = await operator.run(['proc', 'kill', 'a1b2c3d4.0badcafe.1.1', '--reason', 'x', '--yes'])
  expect([init.exitCode, init.stderr]).toEqual([2, expect.stringContaining('never ended')])
})

test('a scan needs no signature, and its dry run sends nothing', async () => {
  const before = controller.actions.plans.size
  const dry = await operator.run(['host', 'scan', 'web-1', '/tmp', '--reason', 'x', '--dry-run'])
  expect([dry.exitCode, controller.actions.plans.size]).toEqual([0, before])
  const scan = await operator.run(['host', 'scan', 'web-1', '/tmp', '--reason', 'x', '--wait'])
  expect(scan.exitCode, scan.stderr).toBe(0)
  expect(scan.prompts).toEqual([])
})

test('a dry run shows the bytes, signs nothing and leaves no plan open', async () => {
  const approvals = controller.actions.approvals.length
  const result = await operator.run([...kill, '--dry-run'])
  expect(result.exitCode, result.stderr).toBe(0)
  expect(result.stderr).toMatch(/To be signed/)
  expect(controller.actions.approvals).toHaveLength(approvals)
  expect(controller.actions.list({ state: 'awaitingApproval', limit: 10 })).toEqual([])
})

test('declining is exit 3 and takes the plan back', async () => {
  const result = await operator.run(kill, { typed: ['n'] })
  expect([result.exitCode, result.stderr]).toEqual([3, expect.stringContaining('nothing was signed')])
  expect(controller.actions.list({ state: 'awaitingApproval', limit: 10 })).toEqual([])
})

test('without a terminal a change needs --yes, and nothing is even planned', async () => {
  const before = controller.actions.plans.size
  expect((await operator.run(kill)).exitCode).toBe(2)
  expect(controller.actions.plans.size).toBe(before)
})

test.each([
  [['done', 'failed'], 6],
  [['failed', 'refused'], 1],
  [['unknown', 'unknown'], 1],
  [['cancelled', 'cancelled'], 3],
] as const)('agents that end in %j give exit %i', async (states, exitCode) => {
  controller.actionOptions.outcome = (index) => states[index] ?? 'failed'
  try {
    const other = 'ffeeddcc.0badcafe.77.1234'
    const result = await operator.run(['proc', 'kill', ENTITY_ID, other, '--reason', 'x', '--yes', '--wait'])
    expect(result.exitCode, result.stderr).toBe(exitCode)
  } finally {
    controller.actionOptions.outcome = () => 'done'
  }
})

test('an action that needs a second signature is exit 7, and the second operator signs the same bytes', async () => {
  controller.actionOptions.signaturesNeeded = 2
  try {
    const first = await operator.run([...kill, '--yes', '--json'])
    expect(first.exitCode, first.stderr).toBe(7)
    using second = await createOperator(controller, 'responder')
    const [{ id }] = first.json() as [{ id: string }]
    const looked = await second.run(['action', 'approve', id.slice(0, 8), '--dry-run'])
    expect([looked.exitCode, looked.stderr]).toEqual([0, expect.stringContaining('process 4242')])
    const result = await second.run(['action', 'approve', id.slice(0, 8), '--wait'], { typed: ['yes'] })
    expect(result.exitCode, result.stderr).toBe(0)
    expect(result.prompts).toEqual(['Sign killProcess on web-1? [y/N] '])
  } finally {
    controller.actionOptions.signaturesNeeded = 1
  }
})

test('waiting longer than asked is exit 8, and the action goes on', async () => {
  const result = await operator.run([...kill, '--yes', '--wait', '--timeout', '400ms'])
  expect(result.exitCode).toBe(8)
  expect(result.stderr).toContain('it goes on')
})

test('one idempotency key makes one action', async () => {
  const words = [...kill, '--yes', '--json', '--idempotency-key', 'once-and-only']
  const first = await operator.run(words)
  const second = await operator.run(words)
  expect([first.exitCode, second.exitCode]).toEqual([0, 0])
  expect((second.json() as [{ id: string }])[0].id).toBe((first.json() as [{ id: string }])[0].id)
})

test('an action can be found by its first digits, watched as lines of JSON, and cancelled', async () => {
  controller.actionOptions.signaturesNeeded = 2
  const planned = await operator.run([...kill, '--yes', '--json'])
  controller.actionOptions.signaturesNeeded = 1
  const [{ id }] = planned.json() as [{ id: string }]
  const cancelled = await operator.run(['action', 'cancel', id.slice(0, 6), '--reason', 'wrong'])
  expect(cancelled.exitCode, cancelled.stderr).toBe(0)
  const watched = await operator.run(['action', 'watch', id.slice(0, 6), '--json'])
  expect(watched.exitCode).toBe(3)
  const lines = watched.stdout.trim().split('\n')
  expect(JSON.parse(lines.at(-1) ?? '')).toMatchObject({ id, state: 'cancelled' })
  const late = await operator.run(['action', 'cancel', id, '--json'])
  expect(late.exitCode).toBe(1)
  expect(JSON.parse(late.stderr)).toMatchObject({
    error: { code: 'tooLate', request_id: expect.any(String) },
  })
})

test('usage errors are exit 2, as JSON when that was asked for', async () => {
  for (const words of [
    ['no-such-noun'],
    ['incident', 'no-such-verb'],
    ['incident', 'get'],
    ['incident', 'get', 'nonsense'],
    ['incident', 'ls', '--status', 'nonsense'],
    ['incident', 'ls', '--limit', '0'],
    ['incident', 'ls', '--url', 'http://controller.example'],
    ['incident', 'ls', '--url', 'ftp://localhost'],
    ['incident', 'ls', '--timeout', 'soon'],
    ['proc', 'kill', ENTITY_ID, '--yes'],
    ['proc', 'kill', 'not-an-entity', '--reason', 'x', '--yes'],
    ['proc', 'kill', ENTITY_ID, '--reason', 'x', '--yes', '--ttl', '2d'],
    ['proc', 'tree'],
  ]) {
    const result = await operator.run([...words, '--json'])
    expect(result.exitCode, words.join(' ')).toBe(2)
    expect(result.stdout).toBe('')
    expect(JSON.parse(result.stderr).error.code).toBe('usage')
  }
})

test('nobody signed in, a wrong password and a role that is too low are exit 4', async () => {
  using viewer = await createOperator(controller, 'viewer')
  expect((await viewer.run(['audit'])).exitCode).toBe(4)
  expect((await viewer.run([...kill, '--yes'])).exitCode).toBe(4)
  const wrong = await viewer.run(['auth', 'login', '--name', 'viewer-user', '--password-stdin'], {
    piped: 'wrong',
  })
  expect([wrong.exitCode, wrong.stderr]).toEqual([4, expect.stringContaining('the sign-in is not right')])
  expect((await viewer.run(['auth', 'logout'])).exitCode).toBe(0)
  const signedOut = await viewer.run(['host', 'ls'])
  expect([signedOut.exitCode, signedOut.stderr]).toEqual([
    4,
    expect.stringContaining('not signed in to http'),
  ])
})

test('a session that ended says so, and a change without a key plans nothing', async () => {
  using responder = await createOperator(controller, 'responder')
  rmSync(join(responder.home, 'keys'), { recursive: true })
  const before = controller.actions.plans.size
  const keyless = await responder.run([...kill, '--yes'])
  expect([keyless.exitCode, keyless.stderr]).toEqual([1, expect.stringContaining('cordon keys create')])
  expect(controller.actions.plans.size).toBe(before)
  const contexts = join(responder.home, 'contexts.json')
  const text = readFileSync(contexts, 'utf8').replace(/"token":"[^"]*"/, `"token":"${'A'.repeat(43)}"`)
  writeFileSync(contexts, text)
  const ended = await responder.run(['host', 'ls'])
  expect([ended.exitCode, ended.stderr]).toEqual([4, expect.stringContaining('is over')])
})

test('a controller that is not there is exit 1 with a word on what to do', async () => {
  const result = await operator.run(['host', 'ls', '--url', 'http://127.0.0.1:1'])
  expect([result.exitCode, result.stderr]).toEqual([1, expect.stringContaining('cannot be reached')])
})

test('Ctrl-C is exit 130', async () => {
  const interrupted = new AbortController()
  const tail = await operator.run(['event', 'tail'], {
    signal: interrupted.signal,
    onOutput: () => interrupted.abort(),
  })
  expect(tail.exitCode).toBe(130)
})

test('the tail prints what arrives after it began, one JSON value a line', async () => {
  let added = false
  const tail = await operator.run(['event', 'tail', '--json', '--count', '1'], {
    onOutput(text) {
      if (added || !text.includes('Waiting')) return
      added = true
      setTimeout(() => {
        controller.events.push({ ...(EVENTS[0] as (typeof EVENTS)[number]), cursor: '0003' })
        controller.change({ kind: 'events', cursor: '0003' })
      }, 200)
    },
  })
  expect(tail.exitCode, tail.stderr).toBe(0)
  expect(JSON.parse(tail.stdout)).toMatchObject({ cursor: '0003' })
})

test('the session is sent to the controller that gave it and to no other', async () => {
  await using other = await startMemoryController()
  const result = await operator.run(['host', 'ls', '--url', other.url])
  expect(result.exitCode).toBe(4)
})

test('contexts and keys are for their owner alone', async () => {
  expect(statSync(join(operator.home, 'contexts.json')).mode & 0o777).toBe(0o600)
  expect(statSync(join(operator.home, 'keys/test.pem')).mode & 0o777).toBe(0o600)
  expect(statSync(join(operator.home, 'keys')).mode & 0o777).toBe(0o700)
})

test('the first administrator signs in with the code, once, at a terminal', async () => {
  await using fresh = await startMemoryController()
  const first = fresh.operators.createFirstSignIn()
  const words = ['auth', 'login', '--url', fresh.url, '--name', 'ada', '--first', first?.code ?? '']
  const home = join(operator.home, 'first')
  const login = await runAt(home, words, { typed: ['too short', PASSWORD, 'mistyped', PASSWORD, PASSWORD] })
  expect(login.stderr).toMatch(/has 9 characters.* Once more\.\nThe two passwords differ\. Once more\./)
  expect(login.exitCode, login.stderr).toBe(0)
  expect(login.stdout + login.stderr).not.toContain(PASSWORD)
  expect((await runAt(home, ['auth', 'status', '--json=name,role'])).json()).toEqual({
    name: 'ada',
    role: 'admin',
  })
  expect((await runAt(home, words, { typed: [PASSWORD, PASSWORD] })).exitCode).toBe(4)
  const short = await runAt(home, ['user', 'create', 'bob', '--role', 'viewer', '--password-stdin'], {
    piped: 'short',
  })
  expect([short.exitCode, short.stderr]).toEqual([1, expect.stringContaining('at least 12')])
})

test('a sealed key opens with its passphrase alone; a clear one is made with a loud warning', async () => {
  using sealed = await createOperator(controller, 'responder')
  const made = await sealed.run(['keys', 'create', 'sealed', '--json'], {
    typed: ['correct horse', 'correct horse'],
  })
  expect(made.exitCode, made.stderr).toBe(0)
  expect(readFileSync(join(sealed.home, 'keys/sealed.sealed.json'), 'utf8')).not.toContain('PRIVATE')
  controller.actionOptions.operatorKeys.push((made.json() as { publicKey: string }).publicKey)
  const twoKeys = await sealed.run([...kill, '--yes'])
  expect([twoKeys.exitCode, twoKeys.stderr]).toEqual([2, expect.stringContaining('--key: sealed, test')])
  const wrong = await sealed.run([...kill, '--yes', '--key', 'sealed', '--passphrase-stdin'], {
    piped: 'wrong',
  })
  expect(wrong.exitCode).toBe(4)
  const right = await sealed.run([...kill, '--yes', '--key', 'sealed', '--passphrase-stdin'], {
    piped: 'correct horse',
  })
  expect(right.exitCode, right.stderr).toBe(0)
  const clear = await sealed.run(['keys', 'create', 'clear', '--no-passphrase'])
  expect(clear.stderr).toMatch(/WARNING: this key has NO passphrase/)
  expect((await sealed.run(['keys', 'create', 'clear', '--no-passphrase'])).exitCode).toBe(1)
  expect((await sealed.run(['keys', 'create', '../x', '--no-passphrase'])).exitCode).toBe(2)
})

test('revoking a host asks for its name', async () => {
  const words = ['host', 'revoke', 'db-1', '--reason', 'sold']
  expect((await operator.run(words, { typed: ['web-1'] })).exitCode).toBe(3)
  expect((await operator.run(words, { typed: ['db-1'] })).exitCode).toBe(0)
})

test('as a real process it answers with the same exit codes and keeps data and remarks apart', async () => {
  const run = (words: readonly string[]) =>
    new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve, reject) => {
      const child = spawn(process.execPath, [join(import.meta.dirname, 'cordon.ts'), ...words], {
        env: { PATH: process.env['PATH'], CORDON_CLI_HOME: operator.home },
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      const output = { stdout: '', stderr: '' }
      child.stdout.on('data', (chunk) => {
        output.stdout += chunk
      })
      child.stderr.on('data', (chunk) => {
        output.stderr += chunk
      })
      child.on('error', reject)
      child.on('close', (code) => resolve({ code, ...output }))
    })
  const listed = await run(['incident', 'ls', '--json=id'])
  expect([listed.code, JSON.parse(listed.stdout), listed.stderr]).toEqual([0, [{ id: 'INC-1' }], ''])
  expect((await run(['incident', 'get', 'INC-77'])).code).toBe(5)
  expect((await run(['incident'])).code).toBe(2)
})
