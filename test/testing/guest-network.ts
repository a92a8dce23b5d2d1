/**
 * A network for a guest in which it reaches ports of this machine's loopback and nothing else: qemu's own user
 * network, restricted, where each connection is handed to a process of its own (forward-port.ts).
 */
import { join } from 'node:path'
import type { GuestKernel } from './guest-kernel.ts'

export interface GuestNetwork {
  /** For the guest: its first process loads what is in this folder, in the order of names (guest-init.c). */
  readonly files: Readonly<Record<string, string>>
  /** For qemu's command line. */
  readonly words: readonly string[]
}

/** Where the guest finds this machine's ports, under their own numbers. */
export const HOST_ADDRESS = '10.0.2.100'
/** Debian's kernels have the card as modules; each needs those before it. */
const MODULES = [
  ...['virtio_ring', 'virtio', 'virtio_pci_modern_dev', 'virtio_pci_legacy_dev', 'virtio_pci'],
  ...['failover', 'net_failover', 'virtio_net'],
]

export function guestNetwork(kernel: GuestKernel, hostPorts: readonly number[]): GuestNetwork {
  if (hostPorts.length === 0) return { files: {}, words: [] }
  const forward = [process.execPath, '--no-warnings', join(import.meta.dirname, 'forward-port.ts')]
  const forwards = hostPorts.map((port) => {
    // The command is taken apart as a shell does it, after qemu split its options at commas.
    const command = [...forward, String(port)].map((word) => `'${word.replaceAll(',', ',,')}'`).join(' ')
    return `guestfwd=tcp:${HOST_ADDRESS}:${port}-cmd:${command}`
  })
  return {
    files: Object.fromEntries(
      MODULES.map((name, index) => [`/lib/modules/start/${index}-${name}.ko`, kernel.modulePath(name)]),
    ),
    words: [
      ...['-netdev', ['user', 'id=net', 'restrict=on', 'ipv6=off', ...forwards].join(',')],
      ...['-device', 'virtio-net-pci,netdev=net,romfile='],
    ],
  }
}
