/**
 * A deployment for tests: controller and agent as processes of their own, in a temporary folder, with an
 * operator signed in. Either program can be killed and started again; what they keep is on disk.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { paths } from '../../controller/ceremony.ts'
import { createAuthority } from '../../controller/pki/authority.ts'
import { createPassphraseFile } from '../../controller/pki/passphrase-file.ts'
import {
  controllerEnvironment,
  type Folders,
  type Ports,
  startAgent,
  startController,
  startDeployment,
  stopDeployment,
} from '../../scripts/setup/deployment.ts'
import { type Operator, signIn } from '../../scripts/setup/operator.ts'
import type { Program } from '../../scripts/setup/program.ts'
import { createObserver, type Observer } from './observer.ts'

/** As root the kernel tells what happens; as an ordinary user polling does. */
export const isRoot = process.getuid?.() === 0

/** Small keys: making those of a real ceremony takes seconds. */
const SMALL_KEYS = { rootKeyBits: 2_048, issuerKeyBits: 2_048, scryptCost: 2 ** 10 }

export interface Stage {
  readonly folder: string
  readonly folders: Folders
  readonly ports: Ports
  readonly apiUrl: string
  readonly agentId: string
  readonly sensors: readonly string[]
  readonly operator: Operator
  readonly observer: Observer
  readonly controllerEnvironment: Record<string, string>
  readonly agentState: { readonly CORDON_AGENT_STATE: string }
  agent(): Program
  controller(): Program
  /** SIGKILL, and until it is gone. */
  killAgent(): Promise<void>
  killController(): Promise<void>
  stopController(): Promise<void>
  startAgent(): Promise<void>
  startController(): Promise<void>
  /** Ends both and removes the folder. */
  [Symbol.asyncDispose](): Promise<void>
}

/** Root, issuers and keyset in the controller's folder, as the ceremony makes them, with small keys. */
export async function makeSmallAuthority(controllerFolder: string) {
  const files = paths(controllerFolder)
  mkdirSync(join(files.authority, 'root'), { recursive: true, mode: 0o700 })
  const [passphrase, rootPassphrase] = [files.passphrase, files.rootPassphrase].map((path) => {
    const made = createPassphraseFile(path)
    if (!made.ok) throw new Error(made.error.reason)
    return made.value
  })
  const created = await createAuthority(files.authority, {
    passphrase: passphrase ?? '',
    rootPassphrase: rootPassphrase ?? '',
    ...SMALL_KEYS,
  })
  if (!created.ok) throw new Error(created.error.reason)
  return created.value
}

export async function startStage(
  options: { readonly agentEnvironment?: Readonly<Record<string, string>> } = {},
): Promise<Stage> {
  const folder = mkdtempSync(join(tmpdir(), 'cordon-stage-'))
  const say = () => undefined
  const deploymentOptions = { folder, say, operators: ['tester'], ...options }
  let agent: Program | null = null
  let controller: Program | null = null
  const remove = async () => {
    await stopDeployment(agent, controller)
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    await makeSmallAuthority(join(folder, 'controller'))
    const deployment = await startDeployment(deploymentOptions)
    const { folders, ports, apiUrl, agentFacts } = deployment
    agent = deployment.agent
    controller = deployment.controller
    const environment = controllerEnvironment(folders, ports, {})
    const home = join(folders.operators, 'tester')
    const operator = await signIn({ name: 'tester', home, apiUrl, controllerEnvironment: environment })
    const current = (program: Program | null): Program => {
      if (program === null) throw new Error('the program was not started')
      return program
    }
    const end = async (program: Program | null) => {
      program?.kill('SIGKILL')
      await program?.exited
    }
    return {
      folder,
      folders,
      ports,
      apiUrl,
      agentId: agentFacts.agentId,
      sensors: agentFacts.sensors,
      operator,
      observer: createObserver(operator),
      controllerEnvironment: environment,
      agentState: { CORDON_AGENT_STATE: folders.agent },
      agent: () => current(agent),
      controller: () => current(controller),
      killAgent: () => end(agent),
      killController: () => end(controller),
      stopController: () => current(controller).stop(),
      async startAgent() {
        agent = (await startAgent(folders, ports, deploymentOptions)).agent
      },
      async startController() {
        controller = await startController(folders, ports, {})
      },
      [Symbol.asyncDispose]: remove,
    }
  } catch (error) {
    await remove()
    throw error
  }
}
