/** Which literal addresses the controller has: the only ones that an isolated host reaches. */
import { lookup as systemLookup } from 'node:dns/promises'
import type { LookupFunction } from 'node:net'
import { isIP, isIPv4 } from 'node:net'
import { CONTROLLERS_MAX } from './record.ts'
import type { Endpoint } from './ruleset.ts'

export type Resolved =
  | { readonly ok: true; readonly controllers: readonly Endpoint[] }
  | { readonly ok: false; readonly reason: string }

type Lookup = (hostName: string) => Promise<readonly { readonly address: string }[]>

const TIMEOUT_MS = 10_000

/** Both families, as the system's own resolver (hosts file and DNS) tells them while it can be asked. */
export async function resolveControllers(
  gatewayUrl: string,
  lookup: Lookup = (hostName) => systemLookup(hostName, { all: true, verbatim: true }),
): Promise<Resolved> {
  const { hostname, port } = new URL(gatewayUrl)
  const name = hostname.replace(/^\[|\]$/g, '')
  const ports = port === '' ? 443 : Number(port)
  if (isIP(name) !== 0) return { ok: true, controllers: [{ address: name, port: ports }] }
  const late = new Promise<never>((_resolve, reject) => {
    setTimeout(() => reject(new Error(`no answer within ${TIMEOUT_MS} ms`)), TIMEOUT_MS).unref()
  })
  try {
    const found = await Promise.race([lookup(name), late])
    // A mapped address is dialled as the IPv4 address that it is.
    const addresses = [...new Set(found.map(({ address }) => address.replace(/^::ffff:(?=[0-9.]+$)/i, '')))]
    const literal = addresses.filter((address) => isIP(address) !== 0)
    if (literal.length === 0) return { ok: false, reason: `the controller's name ${name} has no address` }
    if (literal.length > CONTROLLERS_MAX) {
      return { ok: false, reason: `the controller's name ${name} has more than ${CONTROLLERS_MAX} addresses` }
    }
    return { ok: true, controllers: literal.map((address) => ({ address, port: ports })) }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    return { ok: false, reason: `the controller's name ${name} cannot be resolved: ${reason}` }
  }
}

/** Dials the known addresses whatever the name: an isolated host can ask no name server. */
export function lookupAmong(controllers: readonly Endpoint[]): LookupFunction {
  const known = controllers.map(({ address }) => ({ address, family: isIPv4(address) ? 4 : 6 }))
  return (_hostName, options, callback) => {
    const wanted = Number(options.family ?? 0)
    const fitting = known.filter(({ family }) => wanted === 0 || family === wanted)
    const [first] = fitting
    if (first === undefined) {
      callback(new Error('the controller has no known address of this family'), '', 0)
    } else if (options.all === true) {
      callback(null, fitting)
    } else {
      callback(null, first.address, first.family)
    }
  }
}
