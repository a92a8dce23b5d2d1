/** Hosts in the selection and order that a client asks for: no browser has to sort a fleet. Pure. */
import type { Host } from './services.ts'

export const HOST_SORTS = ['hostName', 'state', 'lastSeenAt', 'certificateExpiresAt', 'bufferedRows'] as const

export interface HostFilter {
  /** Part of a name, id, address or operating system, in any case. */
  readonly search?: string
  readonly state?: Host['state']
  /** Cut off from the network, or not. */
  readonly isolated?: 'yes' | 'no'
  readonly sort?: (typeof HOST_SORTS)[number]
  readonly order?: 'ascending' | 'descending'
  readonly offset?: number
  readonly limit?: number
}

export interface HostSelection {
  readonly hosts: readonly Host[]
  /** How many fit, of which `hosts` is a part. */
  readonly matching: number
  readonly total: number
  /** Of the whole fleet, whatever was asked for. */
  readonly states: readonly { readonly state: Host['state']; readonly count: number }[]
  readonly isolated: number
}

/** What asks for attention first; of those of one state, what is isolated. */
const STATE_RANKS: Readonly<Record<Host['state'], number>> = {
  held: 0,
  silent: 1,
  stopped: 2,
  connected: 3,
  revoked: 4,
}

export function selectHosts(all: readonly Host[], filter: HostFilter): HostSelection {
  const counts = new Map<Host['state'], number>()
  for (const { state } of all) counts.set(state, (counts.get(state) ?? 0) + 1)
  const search = filter.search?.toLowerCase() ?? ''
  const found = all.filter(
    (host) =>
      (filter.state === undefined || host.state === filter.state) &&
      (filter.isolated === undefined || isIsolated(host) === (filter.isolated === 'yes')) &&
      (search === '' || searchedTexts(host).some((text) => text.toLowerCase().includes(search))),
  )
  const { sort, offset = 0 } = filter
  const direction = filter.order === 'descending' ? -1 : 1
  const sorted =
    sort === undefined
      ? found
      : found.toSorted(
          (left, right) =>
            direction * compare(keyOf(left, sort), keyOf(right, sort)) ||
            compare(left.hostName, right.hostName) ||
            compare(left.agentId, right.agentId),
        )
  return {
    hosts: sorted.slice(offset, filter.limit === undefined ? undefined : offset + filter.limit),
    matching: found.length,
    total: all.length,
    states: [...counts]
      .map(([state, count]) => ({ state, count }))
      .sort((left, right) => STATE_RANKS[left.state] - STATE_RANKS[right.state]),
    isolated: all.filter(isIsolated).length,
  }
}

function isIsolated({ isolation }: Host): boolean {
  return isolation !== null && isolation.state !== 'off'
}

function searchedTexts({ hostName, agentId, inventory }: Host): readonly string[] {
  return [
    hostName,
    agentId,
    inventory.operatingSystem,
    inventory.operatingSystemVersion,
    ...inventory.addresses,
  ]
}

function keyOf(host: Host, sort: (typeof HOST_SORTS)[number]): string | number {
  if (sort === 'state') return STATE_RANKS[host.state] - (isIsolated(host) ? 0.5 : 0)
  return host[sort] ?? ''
}

function compare(left: string | number, right: string | number): number {
  return left < right ? -1 : left > right ? 1 : 0
}
