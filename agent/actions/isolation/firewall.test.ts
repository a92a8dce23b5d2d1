import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { createProgramRunner, type RunProgram } from '../../platform/linux/firewall-programs.ts'
import { createFirewall, type Firewall } from './firewall.ts'
import { isTellable } from './ruleset.ts'
import { compileProbe, createNetwork, HOST, type Network, OUTSIDE, type Talk } from './testing/network.ts'

const isRoot = process.getuid?.() === 0
const PORT = 7801
const CONTROLLERS = [
  { address: OUTSIDE.four, port: PORT },
  { address: OUTSIDE.six, port: PORT },
]

/** What an administrator has, in every form that a listing could write differently afterwards. */
const RULES_BEFORE = `
table inet filter {
  comment "of the administrator"
  set friends {
    type ipv4_addr
    flags interval
    elements = { 10.0.0.0/8, 192.0.2.1 }
  }
  chain input {
    type filter hook input priority filter; policy accept;
    ct state established,related accept
    ip saddr @friends counter packets 0 bytes 0 accept
    tcp dport { 22, 443 } accept comment "ways in"
  }
  chain output {
    type filter hook output priority filter; policy accept;
    accept
  }
}
table ip nat {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "up9" masquerade
  }
}
table netdev other {
  chain early {
    type filter hook ingress device "up0" priority -400; policy accept;
    accept
  }
}
table bridge other {
  chain forward {
    type filter hook forward priority 0; policy accept;
  }
}
`

test.each([
  ['eth0', true],
  ['veth1a2b@if3', true],
  ['a"b', false],
  ['br*', false],
  ['a\\b', false],
  ['x'.repeat(16), false],
])('a device that is called %s: nft can be told its name: %s', (name, tellable) => {
  expect(isTellable(name)).toBe(tellable)
})

const answering = (errors: string): RunProgram => {
  return async () => ({ kind: 'ended', code: 1, output: '', errors })
}
const over = (run: RunProgram, devices: readonly string[] = ['up0']) =>
  createFirewall({
    run,
    listDevices: () => devices,
    hasVlanDevices: () => false,
    permission: () => ({ ok: true }),
  })

test('what hinders isolation is told with its mend', async () => {
  const reasonOf = async (firewall: Firewall) => {
    const checked = await firewall.check()
    return checked.ok ? 'possible' : checked.reason
  }
  expect(await reasonOf(over(async () => ({ kind: 'missing' })))).toContain('install nftables')
  expect(await reasonOf(over(answering('Error: Operation not permitted')))).toContain('CAP_NET_ADMIN')
  const withoutEgress: RunProgram = async (_program, _args, input) => {
    const refused = input.includes('hook egress')
    return { kind: 'ended', code: refused ? 1 : 0, output: '', errors: refused ? 'not supported' : '' }
  }
  expect(await reasonOf(over(withoutEgress))).toContain('CONFIG_NETFILTER_EGRESS')
  expect(await reasonOf(over(answering(''), ['a"b']))).toContain('rename it')
})

test('where the interlock forbids it, nft is never run', async () => {
  let runs = 0
  const firewall = createFirewall({
    run: async () => {
      runs += 1
      return { kind: 'ended', code: 0, output: '', errors: '' }
    },
    listDevices: () => ['up0'],
    hasVlanDevices: () => false,
    permission: () => ({ ok: false, reason: 'the launcher is here' }),
  })
  const refused = { ok: false, reason: 'the launcher is here' }
  expect(await firewall.check()).toEqual(refused)
  expect(await firewall.apply(CONTROLLERS)).toEqual(refused)
  expect(await firewall.look()).toEqual(refused)
  expect(await firewall.remove()).toEqual(refused)
  expect(await firewall.closeFlows(CONTROLLERS, [])).toBeNull()
  expect(runs).toBe(0)
})

describe.skipIf(!isRoot)('in namespaces (root alone may make them)', () => {
  let folder: string
  let network: Network
  let firewall: Firewall
  let direct: Talk
  let bridged: Talk
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'cordon-firewall-'))
    network = createNetwork(compileProbe(folder))
    network.nft(RULES_BEFORE)
    firewall = createFirewall({
      run: createProgramRunner(network.within(network.host)),
      listDevices: network.devices,
      hasVlanDevices: () => false,
      permission: () => ({ ok: true }),
    })
    for (const address of [OUTSIDE.four, OUTSIDE.six]) {
      await network.talk(network.outside, 'serve', address, String(PORT))
      await network.talk(network.outside, 'serve', address, '443')
    }
    await network.talk(network.outside, 'serve', OUTSIDE.bridged, '443')
    direct = await network.talk(network.outside, 'listen', 'up0')
    bridged = await network.talk(network.outside, 'listen', 'up1')
  })
  afterEach(async () => {
    await firewall.remove()
  })
  afterAll(() => {
    network?.[Symbol.dispose]()
    rmSync(folder, { recursive: true, force: true })
  })

  /** Every way out that there is, by name: each sends one mark. */
  const waysOut = (): Readonly<Record<string, (mark: string) => void>> => {
    const { host, container, macvlan, probe } = network
    const frame =
      (namespace: string, device: string, kind: string, port = '9') =>
      (mark: string) => {
        probe(namespace, 'packet', device, kind, HOST.four, OUTSIDE.four, port, mark)
      }
    const udp = (namespace: string, to: string, port: string) => (mark: string) => {
      probe(namespace, 'udp', to, port, mark)
    }
    return {
      IPv4: udp(host, OUTSIDE.four, '9'),
      IPv6: udp(host, OUTSIDE.six, '9'),
      DNS: udp(host, OUTSIDE.four, '53'),
      'DNS over IPv6': udp(host, OUTSIDE.six, '53'),
      'UDP to the port of the controller': udp(host, OUTSIDE.four, String(PORT)),
      'DHCP to one address': udp(host, OUTSIDE.four, '67'),
      'raw socket': (mark) => {
        probe(host, 'raw', HOST.four, OUTSIDE.four, '9', mark)
      },
      'packet socket': frame(host, 'up0', 'udp'),
      'packet socket past the queue': frame(host, 'up0', 'bypass'),
      'packet socket with a protocol of its own': frame(host, 'up0', 'other'),
      'packet socket that claims ARP': frame(host, 'up0', 'claims-arp'),
      'packet socket that claims the controller': frame(host, 'up0', 'claims-ip', String(PORT)),
      'container, routed': udp(container, OUTSIDE.four, '9'),
      'container, bridged': udp(container, OUTSIDE.bridged, '9'),
      'container, bridged frame': frame(container, 'eth0', 'udp'),
      'container, bridged ARP': frame(container, 'eth0', 'arp'),
      'container, bridged frame to the controller': frame(container, 'eth0', 'tcp', String(PORT)),
      'container with a macvlan': udp(macvlan, OUTSIDE.four, '9'),
    }
  }

  /** Sends on every way, then what may pass on both links; gives what arrived before that. */
  async function send(round: string): Promise<readonly string[]> {
    const marks = new Map(
      Object.entries(waysOut()).map(([name, way], index) => [name, { way, mark: `CDN:${round}-${index}` }]),
    )
    for (const { way, mark } of marks.values()) way(`${mark}.`)
    for (const [device, listener] of [
      ['up0', direct],
      ['up1', bridged],
    ] as const) {
      for (const number of [1, 2]) {
        const mark = `CDN:${round}-fence-${device}-${number}`
        const { host, probe } = network
        probe(host, 'packet', device, 'tcp', HOST.four, OUTSIDE.four, String(PORT), `${mark}.`)
        await listener.heard(mark)
      }
    }
    const heard = new Set([...direct.lines, ...bridged.lines])
    return [...marks].filter(([, { mark }]) => heard.has(mark)).map(([name]) => name)
  }

  /** Neighbours are found only when the first packet asks for them, so what comes first may come late. */
  async function expectAllOpen(round: string): Promise<void> {
    const ways = Object.keys(waysOut())
    let tries = 0
    await vi.waitFor(
      async () => {
        tries += 1
        expect(await send(`${round}-${tries}`)).toEqual(ways)
      },
      { timeout: 30_000, interval: 200 },
    )
  }

  test('everything leaves before, nothing during and everything after; the ruleset is the same byte for byte', async () => {
    const before = network.ruleset()
    await expectAllOpen('before')

    const applied = await firewall.apply(CONTROLLERS)
    expect(applied).toEqual({
      ok: true,
      devices: ['bridge0', 'guest0', 'up0', 'up1'],
      digest: expect.stringMatching(/^[0-9a-f]{64}$/),
    })
    expect(await send('during')).toEqual([])
    expect(network.ruleset().startsWith(before)).toBe(true)

    expect(await firewall.remove()).toEqual({ ok: true })
    expect(network.ruleset()).toBe(before)
    await expectAllOpen('after')
    expect(await firewall.remove()).toEqual({ ok: true })
    expect(network.ruleset()).toBe(before)
  })

  test('connections to others end, those to the controller go on, over both families and with unknown neighbours', async () => {
    const { host, outside, talk } = network
    const [others, controllers] = await Promise.all([
      Promise.all(
        [OUTSIDE.four, OUTSIDE.six, OUTSIDE.bridged].map((address) => talk(host, 'connect', address, '443')),
      ),
      Promise.all(CONTROLLERS.map(({ address }) => talk(host, 'connect', address, String(PORT)))),
    ])
    const local = await talk(host, 'serve', HOST.four, '8080')
    const toItself = await talk(host, 'connect', HOST.four, '8080')
    for (const one of [...others, ...controllers, toItself]) {
      one.say('before')
      await one.heard('before')
    }
    expect(await firewall.apply(CONTROLLERS)).toMatchObject({ ok: true })
    const closed = await firewall.closeFlows(CONTROLLERS, [HOST.four, HOST.six, HOST.bridged])
    expect(closed).toBeGreaterThanOrEqual(others.length)
    for (const one of others) {
      await one.heard(/^ended /)
      await one.exited
    }
    // Neighbour discovery and ARP have to find the way anew.
    network.run(host, 'ip', 'neigh', 'flush', 'dev', 'up0')
    network.run(outside, 'ip', 'neigh', 'flush', 'dev', 'up0')
    for (const one of [...controllers, toItself]) {
      one.say('during')
      await one.heard('during')
    }
    const fresh = await Promise.all(
      CONTROLLERS.map(({ address }) => talk(host, 'connect', address, String(PORT))),
    )
    for (const one of fresh) {
      one.say('fresh')
      await one.heard('fresh')
    }
    expect(local.lines).toEqual(['ready'])
  })

  test('nobody reaches the host from outside, not even from the address of the controller', async () => {
    const { host, outside, talk, probe } = network
    const [four, six] = await Promise.all([HOST.four, HOST.six].map((to) => talk(host, 'hear', to, '9')))
    const server = await talk(host, 'serve', HOST.four, '8443')
    const segments = await talk(host, 'listen', 'up0')
    if (!four || !six) throw new Error('two were started')
    probe(outside, 'udp', HOST.four, '9', 'CDN:in-before.')
    probe(outside, 'udp', HOST.six, '9', 'CDN:in-before.')
    await four.heard('CDN:in-before')
    await six.heard('CDN:in-before')
    await firewall.apply(CONTROLLERS)
    probe(outside, 'udp', HOST.four, '9', 'CDN:in-during.')
    probe(outside, 'udp', HOST.six, '9', 'CDN:in-during.')
    const knocking = network.start(outside, 'connect', HOST.four, '8443')
    // The frames were there; the sockets got nothing of them.
    await segments.heard('CDN:in-during')
    const line = await talk(host, 'connect', OUTSIDE.four, String(PORT))
    line.say('through')
    await line.heard('through')
    expect([...four.lines, ...six.lines].filter((each) => each === 'CDN:in-during')).toEqual([])
    expect(knocking.lines).toEqual([])
    await firewall.remove()
    probe(outside, 'udp', HOST.four, '9', 'CDN:in-after.')
    await four.heard('CDN:in-after')
    expect(server.lines).toEqual(['ready'])
  })
})
