/** Debian bookworm's own kernel, fetched with apt and unpacked in build/, never installed. */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from '../../scripts/setup/program.ts'

export interface GuestKernel {
  /** Such as `6.1.0-40-cloud-amd64`. */
  readonly release: string
  readonly imagePath: string
  /** The file of a module, such as `dummy`. Throws when the kernel has none of that name. */
  modulePath(name: string): string
}

const FOLDER = join(ROOT, 'build', 'kernel-6.1')
/** Names the current build of the kernel by what it depends on. */
const PACKAGE = 'linux-image-cloud-amd64'
const DOWNLOAD_MS = 300_000

/** Fetches the kernel once. Throws with the reason when it cannot be had. */
export function ensureGuestKernel(say: (line: string) => void): GuestKernel {
  if (!existsSync(FOLDER)) fetchKernel(say)
  const [release] = readdirSync(join(FOLDER, 'lib', 'modules'))
  if (release === undefined) throw new Error(`${FOLDER} holds no kernel: remove it, and it is fetched anew`)
  const modules = join(FOLDER, 'lib', 'modules', release)
  return {
    release,
    imagePath: join(FOLDER, 'boot', `vmlinuz-${release}`),
    modulePath(name) {
      const found = readdirSync(modules, { recursive: true, encoding: 'utf8' }).find((path) =>
        path.endsWith(`/${name}.ko`),
      )
      if (found === undefined) throw new Error(`kernel ${release} has no module ${name}`)
      return join(modules, found)
    },
  }
}

function fetchKernel(say: (line: string) => void): void {
  const unfinished = `${FOLDER}.${process.pid}`
  mkdirSync(unfinished, { recursive: true })
  try {
    const name = currentPackage()
    say(`fetching ${name} for a guest`)
    execFileSync('apt-get', ['download', name], { cwd: unfinished, stdio: 'ignore', timeout: DOWNLOAD_MS })
    const file = readdirSync(unfinished).find((path) => path.endsWith('.deb'))
    if (file === undefined) throw new Error(`apt-get download left no ${name}`)
    execFileSync('dpkg-deb', ['--extract', join(unfinished, file), unfinished])
    rmSync(join(unfinished, file))
    renameSync(unfinished, FOLDER)
  } finally {
    rmSync(unfinished, { recursive: true, force: true })
  }
}

function currentPackage(): string {
  const ask = () => spawnSync('apt-cache', ['depends', PACKAGE], { encoding: 'utf8' }).stdout ?? ''
  const find = (text: string) => /Depends: (linux-image-6\.1\.\S+)/.exec(text)?.[1]
  let name = find(ask())
  if (name === undefined) {
    // A machine that was never updated knows no packages.
    spawnSync('apt-get', ['update'], { timeout: DOWNLOAD_MS })
    name = find(ask())
  }
  if (name === undefined)
    throw new Error(`${PACKAGE} of Debian bookworm, with Linux 6.1, is in none of apt's sources`)
  return name
}
