/** What kind of host this is, told in the hello and shown beside its name. */
import { hostname } from 'node:os'
import { cpu, mem, networkInterfaces, osInfo } from 'systeminformation'
import type { Inventory } from '../../shared/protocol/messages.ts'

/** Takes about a second: called once at start and once a day. */
export async function collectInventory(): Promise<Inventory> {
  const [os, processor, memory, interfaces] = await Promise.all([osInfo(), cpu(), mem(), networkInterfaces()])
  const addresses = [interfaces]
    .flat()
    .flatMap((one) => [one.ip4, one.ip6])
    .filter((address) => address !== '' && address !== undefined)
  return {
    hostName: clip(hostname()),
    operatingSystem: clip(os.distro),
    operatingSystemVersion: clip(os.release),
    kernel: clip(os.kernel),
    architecture: os.arch.slice(0, 32),
    cpuModel: clip(`${processor.manufacturer} ${processor.brand}`.trim()),
    cpuCount: processor.cores,
    memoryBytes: memory.total,
    addresses: addresses.slice(0, 64).map((address) => address.slice(0, 64)),
  }
}

function clip(text: string): string {
  return text.slice(0, 256)
}
