/**
 * A packed agent in a guest with another kernel, enrolled by its own command at a real controller on this machine,
 * which it reaches through the guest's network and in no other way.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { compileMakeActivity, compileTinyExit } from '../../agent/native/testing/compile.ts'
import { ensurePrograms } from '../../scripts/package/build.ts'
import { CONTROLLER, prepareController, startController } from '../../scripts/setup/deployment.ts'
import { type Program, runProgram } from '../../scripts/setup/program.ts'
import type { GuestBuffer } from './guest-buffer.ts'
import { HOST_ADDRESS } from './guest-network.ts'
import { prepareGuestProgram } from './guest-node.ts'
import { bootGuest, type Guest } from './qemu.ts'
import { makeSmallAuthority } from './stage.ts'

export interface GuestAgent extends AsyncDisposable {
  readonly guest: Guest
  readonly agentId: string
  readonly controllerFolder: string
  /** Rows of one class in the agent's own buffer whose text holds `text`, as they lie in the guest. */
  readBuffer(eventClass: number, text: string): Promise<GuestBuffer>
  /** Ends the controller: the guest's agent is cut off until it is started again. */
  stopController(): Promise<void>
  startController(): Promise<void>
  /** Ends the agent in the guest, and starts it again with this in its environment. */
  restartAgent(environment: Readonly<Record<string, string>>): Promise<void>
}

const GUEST_STATE_FOLDER = '/var/lib/cordon-agent'
/** What every Debian has: of the C library, for the engine of the scanner, and the one that logons go through. */
const LIBRARIES = Object.fromEntries(
  ['librt.so.1', 'libpam.so.0'].map((name) => {
    const path = `/lib/x86_64-linux-gnu/${name}`
    return [path, path]
  }),
)
const LOG = '/tmp/agent.log'
/** Where every instruction is translated, the start takes some twenty seconds. */
const READY_MS = 180_000

/** Boots, enrols and starts. Throws with what failed, and the agent's log. */
export async function startGuestAgent(folder: string, say: (line: string) => void): Promise<GuestAgent> {
  await using undo = new AsyncDisposableStack()
  const options = {
    folder,
    say,
    operators: ['tester'],
    controllerEnvironment: { CORDON_CONTROLLER_AGENT_FACING_HOST: HOST_ADDRESS },
  }
  mkdirSync(join(folder, 'controller'), { recursive: true, mode: 0o700 })
  await makeSmallAuthority(join(folder, 'controller'))
  const { folders, ports, environment } = await prepareController(options)
  let controller: Program | null = null
  const begin = async () => {
    controller = await startController(folders, ports, options)
  }
  undo.defer(() => controller?.stop())
  await begin()

  const reader = await prepareGuestProgram(join(import.meta.dirname, 'guest-buffer.ts'), folder)
  const guest = undo.use(
    await bootGuest({
      files: {
        ...reader.files,
        '/bin/sh': '/bin/sh',
        '/bin/cat': '/bin/cat',
        '/bin/sleep': '/bin/sleep',
        '/usr/bin/cordon-agent': join(ensurePrograms(say), 'cordon-agent'),
        '/usr/bin/tiny-exit': compileTinyExit(folder),
        '/usr/bin/make-activity': compileMakeActivity(folder),
        ...LIBRARIES,
      },
      hostPorts: [ports.gateway, ports.enrolment],
      memoryMegabytes: 3_072,
    }),
  )
  const token = await runProgram(CONTROLLER, ['token'], environment)
  if (token.code !== 0) throw new Error(`cordon-controller token failed:\n${token.stderr}`)
  const url = `https://${HOST_ADDRESS}:${ports.enrolment}`
  const enrolled = await guest.must(['cordon-agent', 'enroll', url, token.stdout.trim()])
  const agentId = /^enrolled as agent (\S+) of/.exec(enrolled)?.[1]
  if (agentId === undefined) throw new Error(`cordon-agent enroll said ${enrolled}`)
  await startAgent(guest, {})

  const kept = undo.move()
  return {
    guest,
    agentId,
    controllerFolder: folders.controller,
    async readBuffer(eventClass, text) {
      const buffer = `${GUEST_STATE_FOLDER}/buffer.db`
      return JSON.parse(await guest.must([...reader.command, buffer, String(eventClass), text]))
    },
    async stopController() {
      await controller?.stop()
    },
    startController: begin,
    async restartAgent(changed) {
      const { pid } = JSON.parse(await guest.must(['cordon-agent', 'status', '--json']))
      await guest.must(['sh', '-c', `kill ${pid}; while kill -0 ${pid}; do sleep 1; done 2> /dev/null`])
      await startAgent(guest, changed)
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

async function startAgent(guest: Guest, environment: Readonly<Record<string, string>>): Promise<void> {
  const settings = Object.entries(environment).map(([name, value]) => `${name}=${value} `)
  await guest.must(['sh', '-c', `${settings.join('')}cordon-agent run > ${LOG} 2>&1 &`])
  const until = performance.now() + READY_MS
  for (;;) {
    const log = await guest.must(['cat', LOG])
    if (/^READY /m.test(log)) return
    if (performance.now() > until) throw new Error(`the agent was not ready in the guest:\n${log}`)
    await sleep(1_000)
  }
}
