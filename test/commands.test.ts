/**
 * A thief of the controller against a real agent process: the test holds the controller's state folder and its
 * key, answers the agent under a certificate it believes, and sends what a thief would. Nothing is executed but
 * what an operator signed, once; the rest is refused and told as tampering.
 */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { telemetryRecordPath } from '../agent/actions/telemetry-record.ts'
import { commandIdOf, mutationsOf } from '../agent/actions/testing/test-commands.ts'
import { writeIdentity } from '../agent/identity/identity-files.ts'
import { type FakeController, startFakeController } from '../agent/uplink/testing/fake-controller.ts'
import { paths } from '../controller/ceremony.ts'
import { openAuthority } from '../controller/pki/authority.ts'
import { openKeysetStore } from '../controller/pki/keyset-store.ts'
import { readPassphraseFile } from '../controller/pki/passphrase-file.ts'
import { openRoot } from '../controller/pki/root.ts'
import { eicar } from '../scripts/demo/harmless.ts'
import { AGENT } from '../scripts/setup/deployment.ts'
import { type Program, startProgram } from '../scripts/setup/program.ts'
import { createCertificateRequest, generateAgentKey } from '../shared/node/certificate-request.ts'
import { type SignedKeyset, signKeyset } from '../shared/node/keyset.ts'
import { generateSigningKey, keyIdOf, rawPublicKey } from '../shared/node/signing.ts'
import type { Keyset } from '../shared/protocol/commands.ts'
import type { Command } from '../shared/protocol/messages.ts'
import { eicarTarget, type Sleeper, startSleeper } from './testing/attack.ts'
import { bufferedEvents } from './testing/databases.ts'
import { WAIT } from './testing/observer.ts'
import { makeSmallAuthority } from './testing/stage.ts'
import { createThief, type Thief } from './testing/thief.ts'

const ada = generateSigningKey()
const dismissed = generateSigningKey()
const stranger = generateSigningKey()
const agentId = randomBytes(16).toString('hex')

let folder: string
let testRoot: string
let agentState: string
let controller: FakeController
let agent: Program
let thief: Thief
let commandKey: ReturnType<typeof generateSigningKey>
let keysets: { readonly older: SignedKeyset; readonly present: Keyset }
let victim: Sleeper

function unwrap<Value>(result: { ok: true; value: Value } | { ok: false; error: { reason: string } }): Value {
  if (!result.ok) throw new Error(result.error.reason)
  return result.value
}

const operatorOf = (name: string, key: typeof ada): Keyset['operators'][number] => {
  const publicKey = rawPublicKey(key)
  return { keyId: keyIdOf(publicKey), kind: 'ed25519', publicKey, name, classes: ['C', 'D'] }
}

beforeAll(async () => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), 'cordon-commands-')))
  testRoot = join(folder, 'root')
  agentState = join(folder, 'agent')
  for (const path of [testRoot, agentState]) mkdirSync(path, { mode: 0o700 })
  const files = paths(join(folder, 'controller'))
  await makeSmallAuthority(join(folder, 'controller'))

  // The thief has the folder, and with it everything but what only the root opens.
  const stolen = unwrap(await openAuthority(files.authority, unwrap(readPassphraseFile(files.passphrase))))
  commandKey = stolen.commandKey
  const store = unwrap(openKeysetStore(files.authority, stolen))
  const root = unwrap(
    await openRoot(join(files.authority, 'root'), unwrap(readPassphraseFile(files.rootPassphrase))),
  )
  const older = {
    ...store.keyset(),
    version: 2,
    operators: [operatorOf('ada', ada), operatorOf('dismissed', dismissed)],
  }
  const present = { ...older, version: 3, operators: [operatorOf('ada', ada)] }
  keysets = { older: root.signKeyset(older), present }

  const key = generateAgentKey()
  const issued = unwrap(stolen.issueAgentCertificate(createCertificateRequest(key), agentId))
  const server = stolen.serverCredentials()
  const { rootPem, serverName, fleet } = stolen
  controller = await startFakeController({ rootPem, serverName, server, agent: server })
  const gatewayUrl = `wss://127.0.0.1:${controller.port}`
  writeIdentity(agentState, {
    file: {
      v: 1,
      agentId,
      fleet,
      serverName,
      gatewayUrl,
      enrolmentUrl: 'https://127.0.0.1:9',
      tokenId: '0'.repeat(16),
    },
    rootPem,
    keyset: root.signKeyset(present),
    keyPem: key.export({ format: 'pem', type: 'pkcs8' }).toString(),
    certificateChainPem: issued.certificateChainPem,
  })
  const started = await startProgram({
    name: 'cordon-agent',
    script: AGENT,
    args: ['run', '--stop-with-stdin'],
    environment: { CORDON_AGENT_STATE: agentState, CORDON_AGENT_TEST_ROOT: testRoot },
    logPath: join(folder, 'agent.log'),
    readyPrefix: 'READY ',
    readyTimeoutMs: 60_000,
  })
  agent = started.program
  await vi.waitFor(() => expect(controller.hellos).toHaveLength(1), WAIT)
  thief = createThief({
    fleet,
    agentId,
    agentKeyFingerprint: issued.keyFingerprint,
    keysetVersion: present.version,
    sessionNonce: () => controller.hellos.at(-1)?.sessionNonce ?? '',
    commandKey,
  })
  victim = startSleeper(testRoot)
}, 120_000)

afterAll(async () => {
  victim?.[Symbol.dispose]()
  await agent?.stop()
  await controller?.stop()
  if (folder) rmSync(folder, { recursive: true, force: true })
})

const kill = (signers = [ada], changes: Parameters<Thief['command']>[4] = {}) =>
  thief.command('killProcess', victim.target, { tree: true }, signers, changes)

/** Lists that would hide what is done to files in the test's folder. */
const blind = (signers: Parameters<Thief['command']>[3], changes: Parameters<Thief['command']>[4] = {}) =>
  thief.command(
    'setTelemetryLists',
    { kind: 'host', breakGlassHash: null },
    { lists: { rules: [{ name: 'blind', verdict: 'drop', pathPrefix: testRoot }] } },
    signers,
    changes,
  )

const statesOf = (commandId: string) =>
  bufferedEvents(agentState, 'action-state')
    .filter((event) => event['cordon.command.id'] === commandId)
    .map((event) => event['cordon.command.state'])
const tampers = () => bufferedEvents(agentState, 'tamper').map((event) => String(event['event.reason']))
/** Those told, and those that were only counted because too many came at once. */
const tampersCounted = () =>
  tampers().reduce((sum, reason) => sum + 1 + Number(/\((\d+) more before it/.exec(reason)?.[1] ?? 0), 0)

/** A read that the controller may ask for: when it is done, all that was sent before it has been judged. */
async function askedAndDone(): Promise<void> {
  const scan = thief.command('scanPath', { kind: 'path', path: testRoot }, { filesMax: 10 }, [commandKey])
  controller.send(scan)
  await vi.waitFor(() => expect(statesOf(commandIdOf(scan)).at(-1)).toBe('done'), WAIT)
}

/** Sends one of its own after another until the count of those before it is told with one. */
async function awaitTampers(sent: number): Promise<void> {
  let more = 0
  await vi.waitFor(
    () => {
      if (tampersCounted() === sent + more && more > 0) return
      more += 1
      controller.send(kill([stranger]))
      throw new Error(`${sent + more} were sent, ${tampersCounted()} are told`)
    },
    { timeout: 30_000, interval: 1_000 },
  )
}

test('a thief of the controller can have hosts scanned', async () => {
  await askedAndDone()
  expect(tampers()).toEqual([])
})

test('a thief of the controller cannot have anything else done, whatever is changed in what was signed', async () => {
  const approved = kill()
  const mutations = mutationsOf(approved)
  expect(mutations.length).toBeGreaterThan(30)
  const otherAgent = { agentId: randomBytes(16).toString('hex') }
  const forger = generateKeyPairSync('rsa', { modulusLength: 2_048 }).privateKey
  const hostile: (readonly [string, Command])[] = [
    ...mutations,
    // Whoever has the controller's key wraps the changed parts anew.
    ...mutations
      .filter(([what]) => !what.includes('wrapper') && what !== 'the operator as controller')
      .map(([what, message]) => [`${what}, wrapped anew`, thief.rewrap(message)] as const),
    ['no operator', kill([])],
    ['the controller as the operator', kill([commandKey])],
    ['a key of nobody', kill([stranger])],
    ['a key of nobody beside a good one', kill([ada, stranger])],
    ['a dismissed operator', kill([dismissed])],
    ['a dismissed operator under the older keyset', kill([dismissed], { wrapper: { keysetVersion: 2 } })],
    ['a kill as a read', kill([commandKey], { intent: { class: 'R' } })],
    ['a kill that destroys', kill([ada], { intent: { class: 'D' } })],
    ['another agent', kill([ada], { leaf: otherAgent })],
    ['this agent under another key', kill([ada], { leaf: { agentKeyFingerprint: 'ab'.repeat(32) } })],
    ['another fleet', kill([ada], { intent: { fleet: '0'.repeat(32) } })],
    ['lists that nobody signed', blind([])],
    ['lists that the controller signed', blind([commandKey])],
    ['lists that a key of nobody signed', blind([stranger])],
    ['lists that a dismissed operator signed', blind([dismissed])],
    ['lists as a read', blind([commandKey], { intent: { class: 'R' } })],
    ['an approval for later', kill([ada], { intent: { notBefore: Date.now() + 60_000 } })],
    ['an approval for years', kill([ada], { intent: { expires: Date.now() + 400 * 86_400_000 } })],
    ['another connection', kill([ada], { wrapper: { sessionNonce: '0'.repeat(32) } })],
    ['a sequence that was used', kill([ada], { wrapper: { sequence: 1 } })],
    [
      'a wrapper of another command',
      { ...kill(), wrapper: approved.wrapper, wrapperSignature: approved.wrapperSignature },
    ],
  ]
  const before = tampersCounted()
  controller.send({ kind: 'keyset', ...keysets.older })
  controller.send({
    kind: 'keyset',
    ...signKeyset({ ...keysets.present, version: 9, operators: [operatorOf('mallory', stranger)] }, forger),
  })
  for (const [, message] of hostile) controller.send(message)
  await askedAndDone()
  await awaitTampers(before + hostile.length + 1)
  expect(tampers().join('\n')).toContain('a keyset was refused')

  expect(victim.alive()).toBe(true)
  expect(existsSync(telemetryRecordPath(agentState))).toBe(false)
  const executed = bufferedEvents(agentState, 'action-state').filter(
    (event) => event['cordon.command.action'] !== 'scanPath' && event['cordon.command.state'] !== 'refused',
  )
  expect(executed).toEqual([])
  expect(controller.hellos).toHaveLength(1)
}, 90_000)

test('an approval that has run out is told as expired and not executed', async () => {
  const late = kill([ada], { intent: { notBefore: Date.now() - 60_000, expires: Date.now() - 30_000 } })
  controller.send(late)
  await vi.waitFor(() => expect(statesOf(commandIdOf(late))).toEqual(['expired']), WAIT)
  expect(victim.alive()).toBe(true)
})

test('a command is executed once, however often and however wrapped it comes again', async () => {
  const path = join(testRoot, 'taken.txt')
  writeFileSync(path, eicar())
  const quarantine = thief.command('quarantineFile', eicarTarget(path), {}, [ada])
  controller.send(quarantine)
  await vi.waitFor(() => expect(statesOf(commandIdOf(quarantine)).at(-1)).toBe('done'), WAIT)
  expect(existsSync(path)).toBe(false)
  const states = new Set(statesOf(commandIdOf(quarantine)))

  writeFileSync(path, eicar())
  controller.send(quarantine)
  controller.send(thief.rewrap(quarantine))
  controller.send(thief.rewrap(quarantine, { sessionNonce: null }))
  controller.send(thief.rewrap(quarantine, { epoch: 2, sequence: 1 }))
  // The epoch is the higher one from now on.
  const scan = thief.command('scanPath', { kind: 'path', path: testRoot }, { filesMax: 10 }, [commandKey], {
    wrapper: { epoch: 2 },
  })
  controller.send(scan)
  await vi.waitFor(() => expect(statesOf(commandIdOf(scan)).at(-1)).toBe('done'), WAIT)
  expect(existsSync(path)).toBe(true)
  expect(new Set(statesOf(commandIdOf(quarantine)))).toEqual(states)
  rmSync(path)
})

test('what an operator signed is executed, but not on another connection than it was wrapped for', async () => {
  const wrapped = kill([ada], { wrapper: { epoch: 3 } })
  const before = tampers().length
  controller.cut()
  await vi.waitFor(() => expect(controller.hellos).toHaveLength(2), WAIT)
  await vi.waitFor(() => expect(controller.sockets()).toHaveLength(1), WAIT)
  await vi.waitFor(
    () => {
      // Alerts are told at a bounded rate, which the tests above have used up.
      controller.send(wrapped)
      expect(tampers().slice(before).join()).toContain('nonce: ')
    },
    { timeout: 30_000, interval: 1_000 },
  )
  expect(victim.alive()).toBe(true)

  // All that stood between the victim and every command above: its operator's word for this very one.
  const good = thief.rewrap(wrapped, { epoch: 3 })
  controller.send(good)
  await vi.waitFor(() => expect(victim.alive()).toBe(false), WAIT)
  await vi.waitFor(() => expect(statesOf(commandIdOf(good)).at(-1)).toBe('done'), WAIT)
})
