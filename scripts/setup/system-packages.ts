/** System programs that Cordon's development needs: installed when root, named with their command when not. */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'

export interface SystemProgram {
  /** Found on PATH, or an absolute file that the package brings. */
  readonly present: string
  readonly debianPackage: string
  readonly why: string
}

export const COMPILER: readonly SystemProgram[] = [
  { present: 'gcc', debianPackage: 'gcc', why: 'builds the kernel sensors' },
  { present: '/usr/include/unistd.h', debianPackage: 'libc6-dev', why: 'builds the kernel sensors' },
]
export const CONNECTION_LISTING: readonly SystemProgram[] = [
  { present: 'ss', debianPackage: 'iproute2', why: 'lists connections for the fallback sensors' },
]

/** Debian's own tools for packages of both kinds. */
export const PACKAGING: readonly SystemProgram[] = [
  { present: 'dpkg-deb', debianPackage: 'dpkg', why: 'makes .deb packages' },
  { present: 'rpmbuild', debianPackage: 'rpm', why: 'makes .rpm packages' },
  { present: 'systemd-analyze', debianPackage: 'systemd', why: 'checks units' },
]
/** For making the kernel programs anew, which a checkout has ready made. */
export const KERNEL_COMPILER: readonly SystemProgram[] = [
  { present: 'clang', debianPackage: 'clang', why: 'compiles the kernel programs' },
  { present: '/usr/sbin/bpftool', debianPackage: 'bpftool', why: 'makes their skeleton' },
  { present: '/usr/include/bpf/bpf_helpers.h', debianPackage: 'libbpf-dev', why: 'their headers' },
]
/** For hosts that tests boot. */
export const CONTAINERS: readonly SystemProgram[] = [
  { present: 'systemd-nspawn', debianPackage: 'systemd-container', why: 'boots a host for tests' },
  { present: 'debootstrap', debianPackage: 'debootstrap', why: 'installs a host for tests' },
  { present: '/usr/sbin/bpftool', debianPackage: 'bpftool', why: 'lists what is in the kernel' },
  { present: '/usr/sbin/nft', debianPackage: 'nftables', why: 'lists what is in the firewall' },
]

/** For another kernel than the machine's. */
export const GUESTS: readonly SystemProgram[] = [
  { present: 'qemu-system-x86_64', debianPackage: 'qemu-system-x86', why: 'boots another kernel for tests' },
]

/** For tests of the console. */
export const BROWSER: readonly SystemProgram[] = [
  { present: 'chromium', debianPackage: 'chromium', why: 'opens the console for tests' },
]

/** For isolation, tried in namespaces of the tests' own. */
export const FIREWALL: readonly SystemProgram[] = [
  { present: '/usr/sbin/nft', debianPackage: 'nftables', why: 'cuts hosts off from the network' },
  { present: 'ip', debianPackage: 'iproute2', why: 'makes the networks of tests' },
]

export type SystemOutcome =
  | { readonly kind: 'present' }
  | { readonly kind: 'installed'; readonly packages: readonly string[] }
  | { readonly kind: 'missing'; readonly packages: readonly string[]; readonly mend: string }

/** Makes sure that the programs are there. `say` is told before anything is installed. */
export function ensureSystemPrograms(
  programs: readonly SystemProgram[],
  say: (line: string) => void,
): SystemOutcome {
  const missing = programs.filter((program) => !isPresent(program.present))
  if (missing.length === 0) return { kind: 'present' }
  const packages = [...new Set(missing.map((program) => program.debianPackage))]
  const command = `apt-get install -y --no-install-recommends ${packages.join(' ')}`
  const mend = `${missing.map((program) => `${program.debianPackage} (${program.why})`).join(', ')} missing; install with: sudo ${command}`
  if (process.getuid?.() !== 0 || !isPresent('apt-get')) return { kind: 'missing', packages, mend }
  say(`installing system packages: ${packages.join(' ')}`)
  const environment = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const install = () =>
    spawnSync('apt-get', ['install', '-y', '--no-install-recommends', ...packages], {
      env: environment,
      encoding: 'utf8',
      timeout: 300_000,
    })
  if (install().status !== 0) {
    // A machine that was never updated knows no packages.
    spawnSync('apt-get', ['update'], { env: environment, timeout: 300_000 })
    const second = install()
    if (second.status !== 0) {
      return {
        kind: 'missing',
        packages,
        mend: `${mend} (${second.stderr.trim().split('\n').at(-1) ?? 'apt-get failed'})`,
      }
    }
  }
  return { kind: 'installed', packages }
}

function isPresent(program: string): boolean {
  if (program.startsWith('/')) return existsSync(program)
  return (process.env.PATH ?? '')
    .split(delimiter)
    .some((folder) => folder !== '' && existsSync(join(folder, program)))
}
