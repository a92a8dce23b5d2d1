/** The isolation of a namespace of the test's own: real rules, with clocks and a controller that a test commands. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createSilentLogger } from '../../../../shared/node/logger.ts'
import { createProgramRunner, type RunProgram } from '../../../platform/linux/firewall-programs.ts'
import type { Proof } from '../../action.ts'
import type { Permission } from '../../interlock.ts'
import { createFirewall } from '../firewall.ts'
import { createIsolation } from '../isolation.ts'
import type { Isolation } from '../ports.ts'
import type { OfflineOptions } from '../restore.ts'
import { createNamespace } from './network.ts'

export interface IsolatedHost extends AsyncDisposable {
  readonly stateFolder: string
  /** Milliseconds; `boot` anew is another boot, in which the kernel has no rules. */
  readonly clock: { wallMs: number; bootMs: number; bootId: string }
  /** Whether the controller answers. */
  readonly controller: { answers: boolean; asked: number; redialled: number }
  readonly told: { readonly reverted: [string, string, Proof][]; readonly tampered: string[] }
  /** Programs that were run, with their arguments. */
  readonly ran: string[]
  /** Called before each run. */
  onRun: (line: string) => void
  permission: Permission
  isolation(): Isolation
  offline(): OfflineOptions
  /** As the agent does; `stop` leaves in force what is in force. */
  start(): void
  stop(): Promise<void>
  nft(...args: readonly string[]): Promise<string>
  ip(...args: readonly string[]): Promise<string>
  ruleset(): Promise<string>
}

export const CONTROLLER = { address: '192.0.2.10', port: 7801 }

export async function createIsolatedHost(): Promise<IsolatedHost> {
  const stateFolder = mkdtempSync(join(tmpdir(), 'cordon-isolation-'))
  const namespace = createNamespace()
  const runThere = createProgramRunner(['ip', 'netns', 'exec', namespace.name])
  const must = async (program: string, args: readonly string[], input = '') => {
    const ran = await runThere(program, args, input)
    if (ran.kind !== 'ended' || ran.code !== 0)
      throw new Error(`${program} ${args.join(' ')}: ${JSON.stringify(ran)}`)
    return ran.output
  }
  await must('ip', ['link', 'add', 'up0', 'type', 'veth', 'peer', 'name', 'far0'])
  await must(
    'nft',
    ['-f', '-'],
    'table inet admin {\n chain input {\n type filter hook input priority 0; policy accept;\n ct state established accept\n }\n}\n',
  )
  let devices: readonly string[] = ['far0', 'lo', 'up0']
  let run: {
    readonly isolation: Isolation
    readonly stop: AbortController
    readonly ended: Promise<void>
  } | null = null
  const clock = { wallMs: 1_800_000_000_000, bootMs: 100_000, bootId: 'boot-1' }
  const bootClock = () => ({ bootId: clock.bootId, bootMs: clock.bootMs })
  const networkNamespace = () => 'net:[42]'
  const runProgram: RunProgram = async (program, args, input) => {
    const line = [program, ...args].join(' ')
    host.ran.push(line)
    host.onRun(line)
    return await runThere(program, args, input)
  }
  const firewall = createFirewall({
    run: runProgram,
    listDevices: () => devices,
    hasVlanDevices: () => false,
    permission: () => host.permission,
  })

  const host: IsolatedHost = {
    stateFolder,
    clock,
    controller: { answers: true, asked: 0, redialled: 0 },
    told: { reverted: [], tampered: [] },
    ran: [],
    onRun: () => undefined,
    permission: { ok: true },
    isolation() {
      if (run === null) throw new Error('it was not started')
      return run.isolation
    },
    offline: () => ({ stateFolder, firewall, bootClock, networkNamespace }),
    start() {
      const stop = new AbortController()
      const isolation = createIsolation({
        stateFolder,
        firewall,
        permission: () => host.permission,
        networkNamespace,
        resolveControllers: async () => ({ ok: true, controllers: [CONTROLLER] }),
        ownAddresses: () => [],
        async roundTrip() {
          host.controller.asked += 1
          return host.controller.answers
        },
        reconnect: () => {
          host.controller.redialled += 1
        },
        receiptSent: async () => true,
        bootClock,
        clock: () => clock.wallMs,
        reverted: (...told) => host.told.reverted.push(told),
        tampered: (reason) => host.told.tampered.push(reason),
        changed: () => undefined,
        logger: createSilentLogger(),
        lookEveryMs: 100,
      })
      run = { isolation, stop, ended: isolation.run(stop.signal) }
    },
    async stop() {
      run?.stop.abort()
      await run?.ended
      run = null
    },
    nft: (...args) => must('nft', args),
    async ip(...args) {
      const output = await must('ip', args)
      const listed = await must('cat', ['/proc/self/net/dev'])
      devices = listed
        .split('\n')
        .slice(2)
        .flatMap((line) => /^\s*([^:]+):/.exec(line)?.[1] ?? [])
      return output
    },
    ruleset: () => must('nft', ['list', 'ruleset']),
    async [Symbol.asyncDispose]() {
      await host.stop()
      namespace[Symbol.dispose]()
      rmSync(stateFolder, { recursive: true, force: true })
    },
  }
  return host
}
