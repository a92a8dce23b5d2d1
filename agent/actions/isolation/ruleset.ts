/**
 * The rules of isolation as one nft(8) transaction. Pure.
 *
 * Two walls, each enough for what both see. The inet hooks see what sockets send and what is routed; they hold for
 * every device, those that appear later too. The netdev hooks of each device see every frame, those of raw and
 * packet sockets and of bridged neighbours too, after the last address translation. A rule of somebody else that
 * accepts changes nothing: with netfilter, one drop is final.
 */
import { isIPv4 } from 'node:net'

/** A literal address of the controller with its port. */
export interface Endpoint {
  readonly address: string
  readonly port: number
}

export interface RulesetOptions {
  readonly controllers: readonly Endpoint[]
  /** Every device but the loopback. */
  readonly devices: readonly string[]
  /** Whether frames with a VLAN tag can be the host's own. */
  readonly vlans: boolean
}

export const TABLE = 'cordon'
export const FAMILIES = ['inet', 'netdev', 'bridge'] as const
/** Before everybody else, so that nobody's rule counts, logs or queues what is dropped anyway. */
const PRIORITY = -500
/** NFT_NETDEVICE_MAX of the kernel is 256. */
const DEVICES_PER_CHAIN = 128

/** Taken away in the same transaction in which they are put in force anew; nft 1.0.6 knows no `destroy`. */
export const REMOVAL = FAMILIES.map(
  (family) => `add table ${family} ${TABLE}\ndelete table ${family} ${TABLE}\n`,
).join('')

/** True for a device whose name nft can be told: it has no way to write a quote within quotes. */
export function isTellable(device: string): boolean {
  return device.length <= 15 && /^[\x21-\x7e]+$/.test(device) && !/["\\*]/.test(device)
}

export function isolationRuleset(options: RulesetOptions): string {
  return [REMOVAL, inetTable(options), netdevTable(options), bridgeTable()].join('\n')
}

function sets({ controllers }: RulesetOptions): string {
  const four = controllers.filter(({ address }) => isIPv4(address))
  const six = controllers.filter(({ address }) => !isIPv4(address))
  const elements = (list: readonly string[]) =>
    list.length === 0 ? '' : `elements = { ${[...new Set(list)].join(', ')} }`
  const pairs = (list: readonly Endpoint[]) =>
    elements(list.map(({ address, port }) => `${address} . ${port}`))
  // Neighbour discovery with any other address would be passed on by routers.
  const neighbours = ['fe80::/10', 'ff02::/16', ...six.map(({ address }) => address)]
  return `
  set controllers4 {
    type ipv4_addr . inet_service
    ${pairs(four)}
  }
  set controllers6 {
    type ipv6_addr . inet_service
    ${pairs(six)}
  }
  set neighbours6 {
    type ipv6_addr
    flags interval
    ${elements(neighbours)}
  }`
}

/** What may leave: the controller, neighbour discovery (RFC 4861), MLD (RFC 3810), a DHCP client's broadcasts. */
const LEAVES = `
  chain leaves {
    ip daddr . tcp dport @controllers4 accept
    ip6 daddr . tcp dport @controllers6 accept
    ip6 daddr @neighbours6 ip6 hoplimit 255 icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept
    ip6 daddr ff02::/16 ip6 hoplimit 1 icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } accept
    ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept
    ip6 saddr fe80::/10 ip6 daddr ff02::1:2 udp sport 546 udp dport 547 accept
    drop
  }`

/** What may come in. No connection can be opened to the host, whatever address it claims to come from. */
const COMES = `
  chain comes {
    ip saddr . tcp sport @controllers4 tcp flags & (syn | ack) != syn accept
    ip6 saddr . tcp sport @controllers6 tcp flags & (syn | ack) != syn accept
    icmp type destination-unreachable icmp code frag-needed accept
    icmpv6 type packet-too-big accept
    ip6 hoplimit 255 icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept
    ip6 saddr fe80::/10 ip6 hoplimit 1 icmpv6 type mld-listener-query accept
    udp sport 67 udp dport 68 accept
    ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept
    drop
  }`

function inetTable(options: RulesetOptions): string {
  return `table inet ${TABLE} {${sets(options)}${LEAVES}${COMES}
  chain output {
    type filter hook output priority ${PRIORITY}; policy drop;
    oifname "lo" accept
    jump leaves
  }
  chain input {
    type filter hook input priority ${PRIORITY}; policy drop;
    iifname "lo" accept
    jump comes
  }
  chain forward {
    type filter hook forward priority ${PRIORITY}; policy drop;
  }
}
`
}

/**
 * The type in the frame itself is compared, beside the one that the kernel was told: a packet socket may claim one
 * and send another. What is neither IP nor needed to stay on the link (ARP, 802.1X, link aggregation) is dropped.
 */
function frames(chain: 'leaves' | 'comes', direction: 'oiftype' | 'iiftype', vlans: boolean): string {
  const inTag = vlans
    ? `
    @ll,96,16 { 0x8100, 0x88a8 } @ll,128,16 0x0806 accept
    @ll,96,16 { 0x8100, 0x88a8 } @ll,128,16 0x0800 meta protocol ip jump ${chain}
    @ll,96,16 { 0x8100, 0x88a8 } @ll,128,16 0x86dd meta protocol ip6 jump ${chain}`
    : ''
  return `
  chain ${chain}_frame {
    meta ${direction} != ether jump ${chain}
    @ll,96,16 { 0x0806, 0x888e } accept
    @ll,0,48 0x0180c2000002 @ll,96,16 0x8809 accept
    @ll,96,16 0x0800 meta protocol ip jump ${chain}
    @ll,96,16 0x86dd meta protocol ip6 jump ${chain}${inTag}
    drop
  }`
}

function netdevTable(options: RulesetOptions): string {
  const { devices, vlans } = options
  if (devices.length === 0) return ''
  const chains: string[] = []
  for (let from = 0; from < devices.length; from += DEVICES_PER_CHAIN) {
    const part = devices.slice(from, from + DEVICES_PER_CHAIN)
    const list = part.map((device) => `"${device}"`).join(', ')
    const number = from / DEVICES_PER_CHAIN
    chains.push(`
  chain egress${number} {
    type filter hook egress devices = { ${list} } priority ${PRIORITY}; policy drop;
    jump leaves_frame
  }
  chain ingress${number} {
    type filter hook ingress devices = { ${list} } priority ${PRIORITY}; policy drop;
    jump comes_frame
  }`)
  }
  const frameChains = `${frames('leaves', 'oiftype', vlans)}${frames('comes', 'iiftype', vlans)}`
  return `table netdev ${TABLE} {${sets(options)}${LEAVES}${COMES}${frameChains}${chains.join('')}
}
`
}

/** Nothing passes from one port of a bridge to another, whatever its frames say. */
function bridgeTable(): string {
  return `table bridge ${TABLE} {
  chain forward {
    type filter hook forward priority ${PRIORITY}; policy drop;
  }
}
`
}
