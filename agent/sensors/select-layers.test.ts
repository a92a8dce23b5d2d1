import { execFile, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, describe, expect, test } from 'vitest'
import { loadBuiltAddon } from '../native/testing/compile.ts'
import { selectPlatform } from '../platform/platform.ts'
import { createLayers } from './layers.ts'
import type { SensorRecord } from './records.ts'
import { selectLayers } from './select-layers.ts'

const asRoot = process.geteuid?.() === 0
const program = join(import.meta.dirname, 'testing/tell-layers.ts')
const addonPath = join(import.meta.dirname, '../../build/native/cordon.node')
const folder = mkdtempSync(join(tmpdir(), 'cordon-layers-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

interface Told {
  readonly best: readonly string[]
  readonly available: Readonly<Record<string, { readonly ok: boolean; readonly reason: string }>>
  readonly seen?: { readonly exec: boolean; readonly file: boolean }
  readonly inForce?: readonly string[]
}

/** What a process of its own tells of its layers, begun by `prefix`; it runs them when `place` is given. */
async function tell(prefix: readonly string[], addon = addonPath, place?: string): Promise<Told> {
  const words = [...prefix, process.execPath, program, 'auto', addon, ...(place === undefined ? [] : [place])]
  const [command = '', ...rest] = words
  const { stdout } = await promisify(execFile)(command, rest, { timeout: 50_000 })
  return JSON.parse(stdout) as Told
}

const without = (...rights: string[]) => [
  'setpriv',
  `--bounding-set=${rights.map((right) => `-${right}`).join()}`,
  `--inh-caps=${rights.map((right) => `-${right}`).join()}`,
]

describe.skipIf(!asRoot || spawnSync('setpriv', ['--version']).status !== 0)('root without', () => {
  if (asRoot) loadBuiltAddon()

  test('the rights for kernel programs falls to audit and to a watch of folders, and says what is missing', async () => {
    const { best, available } = await tell(without('bpf', 'perfmon', 'sys_admin'))
    expect(best.slice(0, 2)).toEqual(['audit', 'chokidar'])
    for (const name of ['ebpf', 'ebpf-core']) {
      expect(available[name]).toMatchObject({
        ok: false,
        reason: expect.stringMatching(/lacks CAP_BPF and CAP_PERFMON: run it as root/),
      })
    }
    expect(available['fanotify']).toMatchObject({
      ok: false,
      reason: expect.stringContaining('CAP_SYS_ADMIN'),
    })
  })

  test('the right to open what a handle names does not claim to see files that it could not name', async () => {
    const { best, available } = await tell(without('dac_read_search'))
    expect(best.slice(0, 2)).toEqual(['ebpf', 'chokidar'])
    expect(available['fanotify']).toMatchObject({
      ok: false,
      reason: expect.stringContaining('CAP_DAC_READ_SEARCH'),
    })
  })

  test('any right sees by what needs none, and says why not by more', async () => {
    const told = await tell(['setpriv', '--bounding-set=-all', '--inh-caps=-all'], addonPath, folder)
    // Since Linux 6.6 everybody may listen to process events.
    const best = told.available['proc-connector']?.ok === true ? 'proc-connector' : 'polling'
    expect(told.inForce).toEqual([best, 'chokidar'])
    expect(told.seen).toEqual({ exec: true, file: true })
    for (const [name, right] of [
      ['ebpf', 'CAP_BPF'],
      ['audit', best === 'polling' ? 'CAP_NET_ADMIN' : 'CAP_AUDIT_CONTROL'],
      ['fanotify', 'CAP_SYS_ADMIN'],
    ] as const) {
      expect(told.available[name]).toMatchObject({ ok: false, reason: expect.stringContaining(right) })
    }
  })
})

describe.skipIf(!asRoot)('a host', () => {
  test('whose kernel has no type information falls to audit, and keeps fanotify', async () => {
    // In a mount namespace of its own: the host keeps its types.
    const script = 'mount -t tmpfs cordon-test /sys/kernel/btf && exec "$@"'
    const { best, available } = await tell(['unshare', '--mount', 'sh', '-c', script, 'sh'])
    expect(best.slice(0, 2)).toEqual(['audit', 'fanotify'])
    for (const name of ['ebpf', 'ebpf-core']) {
      expect(available[name]).toMatchObject({
        ok: false,
        reason: expect.stringContaining('/sys/kernel/btf/vmlinux is missing; CONFIG_DEBUG_INFO_BTF'),
      })
    }
  })

  test('without the addon polls, and says how the addon is made', async () => {
    const told = await tell([], join(folder, 'no-such.node'), folder)
    expect(told.inForce).toEqual(['polling', 'chokidar'])
    expect(told.seen).toEqual({ exec: true, file: true })
    for (const name of ['ebpf', 'audit', 'ebpf-core', 'proc-connector', 'fanotify']) {
      expect(told.available[name]).toMatchObject({
        ok: false,
        reason: expect.stringMatching(/no-such\.node is missing: run `node scripts\/build-native\.ts`/),
      })
    }
  })

  test('whose kernel lacks a tracepoint and audit runs the few programs that any kernel takes', async () => {
    const found = selectPlatform()
    if (!found.ok) throw new Error(found.reason)
    const addon = loadBuiltAddon()
    const lacking = (code: string, call: string) => Object.assign(new Error(`${call}: ${code}`), { code })
    const selected = selectLayers({
      settings: { sensors: 'auto', watchPaths: [folder] },
      native: {
        ok: true,
        native: {
          ...addon,
          // No kernel can be made to lack one: its refusals are imitated, and the rest is the real kernel.
          bpfOpen(ringBytes, cgroupPath, coreOnly) {
            if (!coreOnly) throw lacking('ENOENT', 'bpf(BPF_RAW_TRACEPOINT_OPEN)')
            return addon.bpfOpen(ringBytes, cgroupPath, coreOnly)
          },
          netlinkOpen() {
            throw lacking('EPROTONOSUPPORT', 'socket')
          },
        },
      },
      platform: found.platform,
      ownPids: new Set(),
      ownFolders: [],
      stateFolder: folder,
      clock: Date.now,
      warn: () => undefined,
    })
    const layers = createLayers(selected.chains.slice(0, 1), () => undefined)
    const records: SensorRecord[] = []
    const stop = new AbortController()
    const running = layers.run((batch) => records.push(...batch), stop.signal)
    try {
      await expect.poll(() => layers.complete(), { timeout: 20_000 }).toBe(true)
      await promisify(execFile)('/bin/true', ['a-tracepoint-is-missing'])
      const isSeen = () =>
        records.some(
          (record) => record.kind === 'exec' && record.arguments.includes('a-tracepoint-is-missing'),
        )
      await expect.poll(isSeen, { timeout: 10_000 }).toBe(true)
      const states = new Map(layers.status().map((layer) => [layer.name, layer]))
      expect(states.get('ebpf')).toMatchObject({
        inForce: false,
        reason: 'ebpf: bpf(BPF_RAW_TRACEPOINT_OPEN): ENOENT',
      })
      expect(states.get('audit')).toMatchObject({ inForce: false, reason: expect.stringContaining('CONFIG') })
      expect(states.get('ebpf-core')).toMatchObject({
        inForce: true,
        reason: expect.stringMatching(/^fallback, because ebpf: .*ENOENT; audit: /),
      })
      expect(selected.sources(layers.status()).find(({ source }) => source === 'ebpf-system-calls')).toEqual({
        source: 'ebpf-system-calls',
        inForce: false,
        reason: 'ebpf: bpf(BPF_RAW_TRACEPOINT_OPEN): ENOENT',
      })
    } finally {
      stop.abort()
      await running
    }
  })
})
