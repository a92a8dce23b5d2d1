/**
 * The rules of isolation in the kernel: put in force, looked at and taken away with nft(8), each in one
 * transaction. The interlock is asked before every run of it.
 */
import { createHash } from 'node:crypto'
import type { ProgramResult, RunProgram } from '../../platform/linux/firewall-programs.ts'
import type { Permission } from '../interlock.ts'
import { type Endpoint, FAMILIES, isolationRuleset, isTellable, REMOVAL, TABLE } from './ruleset.ts'

export interface FirewallOptions {
  readonly run: RunProgram
  /** Devices of the namespace that `run` works in; the loopback may be among them. */
  readonly listDevices: () => readonly string[]
  readonly hasVlanDevices: () => boolean
  /** Whether the network may be cut here, and whether a cut that is in force may be ended. */
  readonly permission: (use: 'isolate' | 'lift') => Permission
}

export type FirewallResult<Value = object> =
  | ({ readonly ok: true } & Value)
  | { readonly ok: false; readonly reason: string }

export interface InForce {
  readonly devices: readonly string[]
  /** SHA-256 of the rules as the kernel tells them. */
  readonly digest: string
}

export interface Firewall {
  /** Whether isolation can work here. Changes nothing: the kernel checks the rules and drops them. */
  check(): Promise<FirewallResult>
  /** In one transaction, whatever of it was in force before. `known`: devices that are expected to appear. */
  apply(controllers: readonly Endpoint[], known?: readonly string[]): Promise<FirewallResult<InForce>>
  /** Takes away what is Cordon's, and nothing else. */
  remove(): Promise<FirewallResult>
  /** The digest of what is in force; null when nothing is. */
  look(): Promise<FirewallResult<{ readonly digest: string | null }>>
  /** Ends TCP connections to anybody but the controller; null when this host has no means for it. */
  closeFlows(controllers: readonly Endpoint[], ownAddresses: readonly string[]): Promise<number | null>
  devices(): readonly string[]
}

/** A device may go between the look at the list and the transaction. */
const ATTEMPTS_MAX = 5
const REASON_CHARACTERS_MAX = 300
/** Of the documentation (RFC 5737): for a check of what the kernel can do. */
const SAMPLE: Endpoint = { address: '192.0.2.1', port: 443 }
const INSTALL = 'install nftables (apt-get install nftables, dnf install nftables)'

export function createFirewall(options: FirewallOptions): Firewall {
  const { run } = options
  const devices = () => [...new Set(options.listDevices())].filter((name) => name !== 'lo').sort()

  async function nft(use: 'isolate' | 'lift', args: readonly string[], input = ''): Promise<ProgramResult> {
    const permission = options.permission(use)
    if (!permission.ok) return { kind: 'failed', reason: permission.reason }
    return await run('nft', args, input)
  }

  function rules(controllers: readonly Endpoint[], names: readonly string[]): string {
    return isolationRuleset({ controllers, devices: names, vlans: options.hasVlanDevices() })
  }

  async function look(): ReturnType<Firewall['look']> {
    const listed = await Promise.all(
      FAMILIES.map((family) => nft('lift', ['-s', 'list', 'table', family, TABLE])),
    )
    const hash = createHash('sha256')
    let isThere = false
    for (const table of listed) {
      if (ended(table)) {
        isThere = true
        hash.update(table.output)
      } else if (table.kind !== 'ended' || !/No such file or directory/.test(table.errors)) {
        return failed(table)
      }
    }
    return { ok: true, digest: isThere ? hash.digest('hex') : null }
  }

  async function applyTo(
    controllers: readonly Endpoint[],
    names: readonly string[],
  ): Promise<FirewallResult> {
    const applied = await nft('isolate', ['-f', '-'], rules(controllers, names))
    return ended(applied) ? { ok: true } : failed(applied)
  }

  return {
    devices,
    look,
    async check() {
      const names = devices()
      const untellable = names.find((name) => !isTellable(name))
      if (untellable !== undefined) return untellableDevice(untellable)
      const checked = await nft('isolate', ['-c', '-f', '-'], rules([SAMPLE], names))
      if (ended(checked)) return { ok: true }
      if (checked.kind !== 'ended' || isForbidden(checked)) return failed(checked)
      const inetAlone = await nft('isolate', ['-c', '-f', '-'], rules([SAMPLE], []))
      if (!ended(inetAlone)) return failed(checked)
      const reason = `the kernel has no egress hook of network devices (${firstLine(checked.errors)}); run Linux 5.16 or newer with CONFIG_NETFILTER_EGRESS, and nftables 1.0.1 or newer`
      return { ok: false, reason }
    },
    async apply(controllers, known = []) {
      let result: FirewallResult = { ok: false, reason: 'it was not tried' }
      for (let attempt = 0; attempt < ATTEMPTS_MAX && !result.ok; attempt += 1) {
        const present = devices().filter(isTellable)
        const expected = [...new Set([...present, ...known.filter(isTellable)])].sort()
        // Kernels from 6.16 on take the names of devices that are yet to come; older ones refuse them.
        if (attempt === 0 && expected.length > present.length) {
          result = await applyTo(controllers, expected)
        } else {
          result = await applyTo(controllers, present)
        }
        if (!result.ok) continue
        const found = await look()
        if (!found.ok) return found
        if (found.digest === null) return { ok: false, reason: 'nft said nothing, and put nothing in force' }
        return { ok: true, devices: present, digest: found.digest }
      }
      return result.ok ? { ok: false, reason: 'it was not tried' } : result
    },
    async remove() {
      const removed = await nft('lift', ['-f', '-'], REMOVAL)
      if (!ended(removed)) return failed(removed)
      const found = await look()
      if (!found.ok) return found
      return found.digest === null ? { ok: true } : { ok: false, reason: 'its tables are still there' }
    },
    async closeFlows(controllers, ownAddresses) {
      if (!options.permission('isolate').ok) return null
      const kept = [
        ...controllers.map(({ address, port }) => `${inBrackets(address)}:${port}`),
        '127.0.0.0/8',
        '[::1]',
        ...ownAddresses.map(inBrackets),
      ]
      const filter = kept.flatMap((address, index) => [
        ...(index === 0 ? [] : ['and']),
        'not',
        'dst',
        address,
      ])
      const closed = await run('ss', ['-H', '-K', '-n', '-t', 'state', 'connected', ...filter], '')
      if (closed.kind !== 'ended' || closed.code !== 0) return null
      return closed.output.split('\n').filter((line) => line !== '').length
    },
  }
}

type Ended = Extract<ProgramResult, { kind: 'ended' }>

function ended(result: ProgramResult): result is Ended & { readonly code: 0 } {
  return result.kind === 'ended' && result.code === 0
}

function failed(result: ProgramResult): { readonly ok: false; readonly reason: string } {
  if (result.kind === 'missing') return { ok: false, reason: `nft is not there; ${INSTALL}` }
  if (result.kind === 'failed') return { ok: false, reason: result.reason.slice(0, REASON_CHARACTERS_MAX) }
  if (isForbidden(result)) {
    const reason = 'the kernel refuses changes of its firewall: run the agent as root with CAP_NET_ADMIN'
    return { ok: false, reason }
  }
  return { ok: false, reason: `nft failed: ${firstLine(result.errors)}` }
}

function isForbidden(result: Ended): boolean {
  return /Operation not permitted|you must be root/i.test(result.errors)
}

function untellableDevice(name: string): { readonly ok: false; readonly reason: string } {
  const shown = JSON.stringify(name)
  return {
    ok: false,
    reason: `nft cannot be told the name of the network device ${shown}: rename it (ip link set dev NAME name NEW)`,
  }
}

function firstLine(text: string): string {
  return (text.split('\n').find((line) => line.trim() !== '') ?? 'it did not say why').slice(
    0,
    REASON_CHARACTERS_MAX,
  )
}

function inBrackets(address: string): string {
  return address.includes(':') ? `[${address}]` : address
}
