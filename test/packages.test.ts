/** What is in the packages, and the service without one, by the packed programs. Nothing of it is installed here. */
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { uninstall } from '../agent/cli/uninstall.ts'
import { buildPackage, ensurePrograms, packageVersion } from '../scripts/package/build.ts'
import type { PackageSpec } from '../scripts/package/package-spec.ts'
import { agentPackage, controllerPackage } from '../scripts/package/packages.ts'
import { ensureSystemPrograms, PACKAGING } from '../scripts/setup/system-packages.ts'

const system = ensureSystemPrograms(PACKAGING, (line) => console.error(`cordon: ${line}`))
const folder = mkdtempSync(join(tmpdir(), 'cordon-packages-'))
const version = packageVersion()
let programs: string
beforeAll(() => {
  programs = ensurePrograms((line) => console.error(`cordon: ${line}`))
}, 600_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const read = (command: string, ...words: string[]) =>
  execFileSync(command, words, { encoding: 'utf8', maxBuffer: 64 * 1024 ** 2 })
/** The same package with short programs: for what does not depend on their 330 MB. */
const withoutPrograms = (spec: PackageSpec): PackageSpec => ({
  ...spec,
  files: spec.files.map((file) =>
    'from' in file.content ? { ...file, content: { text: file.path } } : file,
  ),
})
const sha256 = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex')

describe.skipIf(system.kind === 'missing')('packages (need dpkg, rpm and systemd)', () => {
  const made = { agentDeb: '', controllerDeb: '', agentRpm: '' }
  beforeAll(() => {
    made.agentDeb = buildPackage('deb', agentPackage(programs, version), folder, 1)
    made.controllerDeb = buildPackage('deb', withoutPrograms(controllerPackage(programs, version)), folder, 1)
    made.agentRpm = buildPackage('rpm', agentPackage(programs, version), folder, 1)
  }, 300_000)

  /** Mode, owner and path of everything but folders. */
  const listed = (path: string) =>
    read('dpkg-deb', '--contents', path)
      .trim()
      .split('\n')
      .map((line) => line.split(/\s+/))
      .filter(([mode = '']) => !mode.startsWith('d'))
      .map(([mode, owner, , , , file]) => `${mode} ${owner} ${file?.slice(1)}`)
      .sort()

  test('the agent`s package for Debian brings its files, root`s alone', () => {
    expect(listed(made.agentDeb)).toEqual([
      '-rw-r--r-- root/root /etc/cordon-agent/agent.json',
      '-rw-r--r-- root/root /usr/lib/systemd/system/cordon-agent-isolation.service',
      '-rw-r--r-- root/root /usr/lib/systemd/system/cordon-agent.service',
      '-rw-r--r-- root/root /usr/share/doc/cordon-agent/copyright',
      '-rw-r--r-- root/root /usr/share/doc/cordon-agent/install.md',
      '-rw-r--r-- root/root /usr/share/man/man8/cordon-agent.8.gz',
      '-rwxr-xr-x root/root /usr/bin/cordon-agent',
    ])
    const field = (name: string) => read('dpkg-deb', '--field', made.agentDeb, name).trim()
    expect([field('Package'), field('Version'), field('Architecture')]).toEqual([
      'cordon-agent',
      version,
      'amd64',
    ])
    expect(field('Depends')).toContain('libc6 (>= 2.34)')
    expect(field('Recommends')).toContain('nftables')
    expect(read('dpkg-deb', '--info', made.agentDeb, 'conffiles')).toBe('/etc/cordon-agent/agent.json\n')
  })

  test('the controller`s package brings the operators` program with its completion', () => {
    const files = listed(made.controllerDeb).map((line) => line.split(' ').at(-1))
    for (const path of [
      '/usr/bin/cordon-controller',
      '/usr/bin/cordon',
      '/usr/lib/sysusers.d/cordon-controller.conf',
    ]) {
      expect(files).toContain(path)
    }
    const tree = join(folder, 'controller')
    read('dpkg-deb', '--extract', made.controllerDeb, tree)
    const completion = join(tree, 'usr/share/bash-completion/completions/cordon')
    expect(spawnSync('bash', ['-n', completion]).status).toBe(0)
    expect(readFileSync(completion, 'utf8')).toContain('complete ')
  })

  test('scripts of both packages are whole and are shell', () => {
    for (const path of [made.agentDeb, made.controllerDeb]) {
      const control = mkdtempSync(join(folder, 'control-'))
      read('dpkg-deb', '--control', path, control)
      const scripts = readdirSync(control).filter((name) => /^(pre|post)(inst|rm)$/.test(name))
      expect(scripts.sort()).toEqual(['postinst', 'postrm', 'preinst', 'prerm'])
      for (const name of scripts) {
        expect(readFileSync(join(control, name), 'utf8')).not.toContain('#include')
        expect(spawnSync('sh', ['-n', join(control, name)], { encoding: 'utf8' })).toMatchObject({
          status: 0,
          stderr: '',
        })
      }
    }
  })

  test('the package for Fedora has the same files, keeps settings and asks before it goes', () => {
    const files = read(
      'rpm',
      '-qp',
      '--qf',
      '[%{FILEMODES:perms} %{FILEUSERNAME} %{FILENAMES}\\n]',
      made.agentRpm,
    )
    for (const line of listed(made.agentDeb)) {
      const [mode, , path] = line.split(' ')
      expect(files).toContain(`${mode} root ${path}\n`)
    }
    const digests = read('rpm', '-qp', '--qf', '[%{FILEDIGESTS} %{FILENAMES}\\n]', made.agentRpm)
    // Neither stripped nor compressed by the tool, which would break it.
    expect(digests).toContain(`${sha256(join(programs, 'cordon-agent'))} /usr/bin/cordon-agent\n`)
    expect(read('rpm', '-qp', '--configfiles', made.agentRpm)).toBe('/etc/cordon-agent/agent.json\n')
    expect(read('rpm', '-qp', '--requires', made.agentRpm)).toContain('glibc >= 2.34')
    const scripts = read('rpm', '-qp', '--scripts', made.agentRpm)
    expect(scripts).toContain('uninstall --check')
    expect(scripts).not.toContain('%%')
  })

  test('the same inputs make the same bytes', () => {
    const build = (kind: 'deb' | 'rpm') => {
      const again = mkdtempSync(join(folder, 'again-'))
      return sha256(buildPackage(kind, withoutPrograms(agentPackage(programs, version)), again, 1))
    }
    expect(build('deb')).toBe(build('deb'))
    expect(build('rpm')).toBe(build('rpm'))
  })

  test('units are sound, their commands exist, and they are as closed as docs/install.md says', () => {
    const units = join(folder, 'units')
    mkdirSync(units)
    for (const spec of [agentPackage(programs, version), controllerPackage(programs, version)]) {
      for (const { path, content } of spec.files) {
        if (!path.endsWith('.service') || !('text' in content)) continue
        // Here nothing is installed: the programs are where they were made.
        const text = content.text.replaceAll('=/usr/bin/', `=${programs}/`)
        writeFileSync(join(units, path.slice(path.lastIndexOf('/') + 1)), text)
        for (const [, words = ''] of text.matchAll(/^Exec\w+=\S+ --config \S+ (\S+)$/gm)) {
          const program = path.includes('agent') ? 'cordon-agent' : 'cordon-controller'
          expect(read(join(programs, program), words, '--help')).toContain(`Usage: ${program} ${words}`)
        }
      }
    }
    const names = readdirSync(units).map((name) => join(units, name))
    expect(names).toHaveLength(3)
    const verified = spawnSync('systemd-analyze', ['verify', '--man=no', ...names], { encoding: 'utf8' })
    expect(verified).toMatchObject({ status: 0, stderr: '' })
    const manual = readFileSync(join(import.meta.dirname, '..', 'docs', 'install.md'), 'utf8')
    for (const name of names) {
      const judged = read('systemd-analyze', 'security', '--offline=true', '--no-pager', name)
      const [, unit = '', exposure] = /exposure level for (\S+): ([0-9.]+)/.exec(judged) ?? []
      const documented = manual.match(new RegExp(`\\| \`${unit}\` \\| ([0-9.]+) \\|`))?.[1]
      // Versions of systemd weigh a little differently.
      expect(Number(exposure)).toBeLessThanOrEqual(Number(documented) + 0.3)
    }
  })

  test('no program needs a newer C library than its package asks for', () => {
    const root = join(import.meta.dirname, '..')
    const binaries = [
      join(programs, 'cordon-agent'),
      join(root, 'node_modules/better-sqlite3/prebuilds/linux-x64.node'),
      join(root, 'node_modules/@litko/yara-x-linux-x64-gnu/yara-x.linux-x64-gnu.node'),
      join(root, 'build/native/cordon.node'),
    ]
    for (const binary of binaries) {
      const needed = [...read('objdump', '-T', binary).matchAll(/GLIBC_2\.(\d+)/g)].map(([, minor]) =>
        Number(minor),
      )
      expect(Math.max(...needed)).toBeLessThanOrEqual(34)
    }
  })
})

describe('the service without a package', () => {
  const agent = (...words: string[]) =>
    spawnSync(join(programs, 'cordon-agent'), words, { encoding: 'utf8', timeout: 60_000 })
  const files = (root: string) =>
    readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((entry) => !entry.isDirectory())
      .map((entry) => join(entry.parentPath, entry.name).slice(root.length))
      .sort()
  const image = () => mkdtempSync(join(folder, 'image-'))

  test('an image gets program, units that start at boot, and settings; again it keeps the settings', () => {
    const root = image()
    expect(agent('install', '--root', root)).toMatchObject({ status: 0, stderr: '' })
    expect(files(root)).toEqual([
      '/etc/cordon-agent/agent.json',
      '/etc/systemd/system/cordon-agent-isolation.service',
      '/etc/systemd/system/cordon-agent.service',
      '/etc/systemd/system/multi-user.target.wants/cordon-agent.service',
      '/etc/systemd/system/sysinit.target.wants/cordon-agent-isolation.service',
      '/usr/bin/cordon-agent',
    ])
    expect(sha256(join(root, 'usr/bin/cordon-agent'))).toBe(sha256(join(programs, 'cordon-agent')))
    const wanted = join(root, 'etc/systemd/system/multi-user.target.wants/cordon-agent.service')
    expect(readFileSync(wanted, 'utf8')).toContain('ExecStart=/usr/bin/cordon-agent')
    writeFileSync(join(root, 'etc/cordon-agent/agent.json'), '{"logLevel":"warn"}')
    expect(agent('install', '--root', root).status).toBe(0)
    expect(readFileSync(join(root, 'etc/cordon-agent/agent.json'), 'utf8')).toBe('{"logLevel":"warn"}')
  })

  test('a program that everybody may write is installed as one that root alone may write', () => {
    const root = image()
    const open = join(mkdtempSync(join(folder, 'open-')), 'cordon-agent')
    copyFileSync(join(programs, 'cordon-agent'), open)
    chmodSync(open, 0o777)
    const installed = spawnSync(open, ['install', '--root', root], { encoding: 'utf8', timeout: 60_000 })
    expect(installed).toMatchObject({ status: 0, stderr: '' })
    expect(statSync(join(root, 'usr/bin/cordon-agent')).mode & 0o7777).toBe(0o755)
  })

  test('uninstall keeps the state, purge says what it destroys and asks, and then leaves nothing', () => {
    const root = image()
    agent('install', '--root', root)
    const state = join(root, 'var/lib/cordon-agent')
    writeFileSync(join(state, 'identity.json'), '{}')
    mkdirSync(join(state, 'quarantine'))
    writeFileSync(join(state, 'quarantine', 'one'), '')
    const asked = agent('uninstall', '--root', root, '--purge')
    expect(asked.status).toBe(1)
    expect(asked.stdout).toContain('destroys the identity of this host')
    expect(asked.stdout).toContain('destroys 1 files in quarantine')
    expect(existsSync(join(root, 'usr/bin/cordon-agent'))).toBe(true)

    expect(agent('uninstall', '--root', root).status).toBe(0)
    expect(files(root)).toEqual([
      '/etc/cordon-agent/agent.json',
      '/var/lib/cordon-agent/identity.json',
      '/var/lib/cordon-agent/quarantine/one',
    ])
    expect(agent('uninstall', '--root', root, '--purge', '--yes').status).toBe(0)
    expect(files(root)).toEqual([])
  })

  test.each([
    ['an identity for an image', ['--enroll', 'https://c:7802', 'T'], 'belongs to one host'],
    ['half an enrolment', ['--enroll', 'https://c:7802'], 'takes an address and a token'],
  ])('%s is refused, and nothing is written', (_name, words, reason) => {
    const root = image()
    const ran = agent('install', '--root', root, ...words)
    expect([ran.status, files(root)]).toEqual([1, []])
    expect(ran.stderr).toContain(reason)
  })

  test('beside a package neither install nor uninstall touches anything', () => {
    const root = image()
    mkdirSync(join(root, 'usr/lib/systemd/system'), { recursive: true })
    writeFileSync(join(root, 'usr/lib/systemd/system/cordon-agent.service'), '')
    for (const command of ['install', 'uninstall']) {
      const ran = agent(command, '--root', root)
      expect(ran.status).toBe(1)
      expect(ran.stderr).toContain('comes from a package')
    }
    expect(files(root)).toEqual(['/usr/lib/systemd/system/cordon-agent.service'])
  })

  test('an isolated host keeps its agent, and says how to release it', async () => {
    const root = image()
    mkdirSync(join(root, 'usr/bin'), { recursive: true })
    writeFileSync(join(root, 'usr/bin/cordon-agent'), '')
    const before = files(root)
    const refused = await uninstall({
      root,
      userId: 0,
      isolation: 'this host is isolated',
      systemctl: () => ({ ok: false, reason: 'nothing is asked of systemd' }),
      say: () => undefined,
      purge: null,
      clean: async () => [],
    })
    expect(refused).toEqual({ ok: false, reason: 'this host is isolated' })
    expect(files(root)).toEqual(before)

    const state = mkdtempSync(join(folder, 'state-'))
    const check = () =>
      spawnSync(join(programs, 'cordon-agent'), ['uninstall', '--check'], {
        encoding: 'utf8',
        env: { ...process.env, CORDON_AGENT_STATE: state },
      })
    expect(check().status).toBe(0)
    // A record that cannot be read frees nobody.
    writeFileSync(join(state, 'isolation.json'), '{')
    expect(check().status).toBe(3)
    expect(check().stdout).toContain('cordon host release HOST')
  })
})
