/**
 * The packages on a Debian host that boots: installed, enrolled, upgraded, killed, isolated, booted anew, removed
 * and purged. Runs with `npm run test:long`, as root; the base system comes from Debian's mirror the first time.
 * The tests are one story, told in its order.
 */
import { copyFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { buildPackage, ensurePrograms, packageVersion } from '../scripts/package/build.ts'
import { agentPackage, controllerPackage } from '../scripts/package/packages.ts'
import { bootContainer, type Container, ensureBase } from './testing/container.ts'
import { readMarks } from './testing/databases.ts'
import { heldBy, type KernelObjects, stillThere } from './testing/kernel-objects.ts'

const isLong = process.env['CORDON_TEST_LONG'] === '1' && process.geteuid?.() === 0
const WAIT = { timeout: 90_000, interval: 250 }
const AGENT = 'cordon-agent.service'
const NEWER = '99.0.0'
const OLDER = packageVersion()
/** What the system itself writes while packages come and go. */
const NOT_OURS = /^\/(dev|proc|sys|run|tmp|root|var\/(log|cache|tmp|lib\/(dpkg|systemd|apt)))(\/|$)/

describe.skipIf(!isLong)('the packages on a host that boots', { timeout: 300_000 }, () => {
  const packages = mkdtempSync(join(tmpdir(), 'cordon-packages-'))
  let host: Container
  let filesBefore: readonly string[]

  beforeAll(async () => {
    const say = (line: string) => console.error(`cordon: ${line}`)
    ensureBase(say)
    const programs = ensurePrograms(say)
    for (const version of [OLDER, NEWER]) buildPackage('deb', agentPackage(programs, version), packages, 1)
    buildPackage('deb', controllerPackage(programs, OLDER), packages, 1)
    host = await bootContainer()
    filesBefore = files()
    writeFileSync(join(host.root, 'etc', 'hosts'), '127.0.0.1 localhost\n')
    for (const file of readdirSync(packages))
      copyFileSync(join(packages, file), join(host.root, 'root', file))
    copyFileSync(join(programs, 'cordon-agent'), join(host.root, 'root', 'cordon-agent'))
    host.must('chmod', '755', '/root/cordon-agent')
  }, 1_200_000)

  afterAll(async () => {
    await host?.[Symbol.asyncDispose]()
    rmSync(packages, { recursive: true, force: true })
  }, 180_000)

  const installDeb = (name: string, version: string) =>
    host.must('dpkg', '-i', `/root/${name}_${version}_amd64.deb`)
  const stateOf = (unit: string) => host.run('systemctl', 'is-active', unit).stdout.trim()
  const mainPid = () => Number(host.must('systemctl', 'show', '--property=MainPID', '--value', AGENT))
  const killAgent = () => host.must('systemctl', 'kill', '--kill-whom=main', '--signal=KILL', AGENT)
  const status = () => JSON.parse(host.must('cordon-agent', 'status', '--json'))
  const marks = () => readMarks(join(host.root, 'var', 'lib', 'cordon-agent'))
  const held = () => heldBy(host.unitPids(AGENT))
  const rules = () => host.must('nft', 'list', 'ruleset')
  const files = () =>
    host
      .must('find', '/', '-xdev', '-print')
      .split('\n')
      .filter((path) => path !== '' && !NOT_OURS.test(path))
      .sort()
  const connected = () => vi.waitFor(() => expect(status().connection.state).toBe('connected'), WAIT)
  const cordon = (...words: string[]) => host.must('cordon', ...words)

  async function enrol(): Promise<void> {
    const token = host.must('cordon-controller', 'token').trim()
    host.must('sh', '-c', `echo ${token} | cordon-agent enroll https://localhost:7802 -`)
    host.must('systemctl', 'start', AGENT)
    await connected()
  }

  function sum(objects: KernelObjects): readonly number[] {
    return [objects.programs.size, objects.maps.size, objects.links.size, objects.fanotifyGroups]
  }

  test('installed and not yet enrolled, both services are enabled and wait without failing', () => {
    installDeb('cordon-controller', OLDER)
    installDeb('cordon-agent', OLDER)
    for (const unit of ['cordon-agent', 'cordon-controller']) {
      expect(stateOf(unit)).toBe('inactive')
      expect(host.run('systemctl', 'is-enabled', unit).stdout.trim()).toBe('enabled')
    }
    expect(host.run('systemctl', 'is-system-running').stdout.trim()).toBe('running')
    const units = ['cordon-agent', 'cordon-agent-isolation', 'cordon-controller'].map(
      (name) => `${name}.service`,
    )
    expect(host.run('systemd-analyze', 'verify', '--man=no', ...units)).toMatchObject({ code: 0, stderr: '' })
    expect(host.must('dpkg', '--verify', 'cordon-agent', 'cordon-controller')).toBe('')
  })

  test('the controller works as a user of its own, whose files root`s commands leave it', () => {
    const key = JSON.parse(cordon('keys', 'create', 'ada', '--no-passphrase', '--json')).publicKey
    host.must('cordon-controller', 'init', '--operator', `ada:${key}`)
    host.must('systemctl', 'start', 'cordon-controller')
    host.must(
      'sh',
      '-c',
      'echo correct horse battery staple 42 | cordon-controller user ada --role responder',
    )
    const foreign = host.must('find', '/var/lib/cordon-controller', '!', '-user', 'cordon-controller')
    expect(foreign).toBe('')
    const pid = Number(host.must('systemctl', 'show', '--property=MainPID', '--value', 'cordon-controller'))
    expect(host.must('cat', `/proc/${pid}/status`)).toMatch(/^CapEff:\s+0000000000000000$/m)
  })

  test('an enrolled agent runs as a service with kernel programs, and without the rights that it does not need', async () => {
    await enrol()
    const report = status()
    expect(report.interlock).toBe('off: this agent runs as a service')
    expect(report.sensors.find((sensor: { name: string }) => sensor.name === 'ebpf').inForce).toBe(true)
    expect(sum(held()).every((count) => count > 0)).toBe(true)
    expect(host.must('systemctl', 'show', '--property=StatusText', '--value', AGENT)).toContain('ebpf')
    const facts = host.must('cat', `/proc/${mainPid()}/status`)
    expect(facts).toMatch(/^NoNewPrivs:\s+1$/m)
    expect(facts).toMatch(/^Seccomp:\s+2$/m)
  })

  test('an upgrade restarts the agent, and keeps identity, buffer, sequences and settings', async () => {
    writeFileSync(join(host.root, 'etc/cordon-agent/agent.json'), '{"logLevel":"debug"}\n')
    const before = { pid: mainPid(), agentId: status().agentId, marks: marks(), objects: held() }
    installDeb('cordon-agent', NEWER)
    await connected()
    expect(mainPid()).not.toBe(before.pid)
    expect(status().agentId).toBe(before.agentId)
    const after = marks()
    expect(after.streamId).toBe(before.marks.streamId)
    for (const [index, made] of before.marks.made.entries())
      expect(after.made[index]).toBeGreaterThanOrEqual(made)
    expect(host.must('cat', '/etc/cordon-agent/agent.json')).toBe('{"logLevel":"debug"}\n')
    expect(stillThere(before.objects)).toEqual([])
  })

  test('killed, the agent is back, and nothing of it is in the kernel twice', async () => {
    const before = { pid: mainPid(), objects: held() }
    killAgent()
    await vi.waitFor(() => {
      expect(stateOf(AGENT)).toBe('active')
      expect(mainPid()).not.toBe(before.pid)
    }, WAIT)
    await connected()
    expect(stillThere(before.objects)).toEqual([])
    await vi.waitFor(() => expect(sum(held())).toEqual(sum(before.objects)), WAIT)
  })

  test('stopped, nothing of the agent is in the kernel', () => {
    const before = held()
    host.must('systemctl', 'stop', AGENT)
    expect(stillThere(before)).toEqual([])
    expect(rules()).toBe('')
    expect(host.unitPids(AGENT)).toEqual([])
    host.must('systemctl', 'start', AGENT)
  })

  test('an isolation in force outlives stop, kill, upgrade and boot, and nobody removes the agent meanwhile', async () => {
    await connected()
    host.must(
      'sh',
      '-c',
      'echo correct horse battery staple 42 | cordon auth login --url http://localhost:7800 --name ada --password-stdin',
    )
    const name = JSON.parse(host.must('cordon-agent', 'status', '--json')).agentId
    cordon('host', 'isolate', name, '--reason', 'the story', '--yes', '--wait')
    const isolated = rules()
    expect(isolated).toContain('table inet cordon')

    host.must('systemctl', 'stop', AGENT)
    expect(rules()).toBe(isolated)
    expect(host.must('cordon-agent', 'clean-kernel')).not.toContain('table')
    expect(rules()).toBe(isolated)
    host.must('systemctl', 'start', AGENT)
    killAgent()
    await vi.waitFor(() => expect(stateOf(AGENT)).toBe('active'), WAIT)
    installDeb('cordon-agent', NEWER)
    expect(rules()).toContain('table inet cordon')

    const removal = host.run('dpkg', '--remove', 'cordon-agent')
    expect(removal.code).not.toBe(0)
    expect(`${removal.stdout}${removal.stderr}`).toContain('cordon host release')
    expect(host.run('dpkg', '--status', 'cordon-agent').stdout).toContain('ok installed')

    await host.reboot()
    expect(stateOf('cordon-agent-isolation')).toBe('active')
    expect(rules()).toContain('table inet cordon')
    await connected()
    const order = host.must('systemctl', 'show', '--property=Before', '--value', 'cordon-agent-isolation')
    expect(order).toContain('network-pre.target')

    cordon('host', 'release', name, '--reason', 'the story', '--yes', '--wait')
    expect(rules()).toBe('')
  })

  test('rules that no record keeps are what a killed agent left: they go', () => {
    host.must('systemctl', 'stop', AGENT)
    host.must('nft', 'add table inet cordon; add table inet other')
    expect(host.must('cordon-agent', 'clean-kernel')).toContain('removed table inet cordon')
    expect(rules()).toBe('table inet other {\n}\n')
    expect(host.must('cordon-agent', 'clean-kernel')).toBe('')
    host.must('nft', 'delete table inet other')
    host.must('systemctl', 'start', AGENT)
  })

  test('removed, the state stays, and an agent that comes back takes it up', async () => {
    await connected()
    const before = { objects: held(), agentId: status().agentId, streamId: marks().streamId }
    host.must('dpkg', '--remove', 'cordon-agent')
    expect(stillThere(before.objects)).toEqual([])
    expect(marks().streamId).toBe(before.streamId)
    installDeb('cordon-agent', OLDER)
    await connected()
    expect(status().agentId).toBe(before.agentId)
  })

  test('purged, nothing is left: no file, no user, no rule, nothing in the kernel', () => {
    const objects = held()
    host.must('dpkg', '--purge', 'cordon-agent', 'cordon-controller')
    const left = new Set(filesBefore)
    expect(files().filter((path) => !left.has(path) && path !== '/etc/hosts')).toEqual([])
    expect(host.run('getent', 'passwd', 'cordon-controller').code).not.toBe(0)
    expect(stillThere(objects)).toEqual([])
    expect(rules()).toBe('')
  })

  test('without a package `install` makes the service, a package takes it over, `uninstall` leaves nothing', async () => {
    host.must('/root/cordon-agent', 'install')
    expect(stateOf(AGENT)).toBe('inactive')
    expect(host.must('/root/cordon-agent', 'install')).toContain('waits for enrolment')
    expect(host.run('systemctl', 'is-enabled', AGENT).stdout.trim()).toBe('enabled')
    expect(host.must('cordon-agent', 'uninstall', '--purge', '--yes')).toContain(
      'removed /usr/bin/cordon-agent',
    )
    const left = new Set(filesBefore)
    expect(files().filter((path) => !left.has(path) && path !== '/etc/hosts')).toEqual([])

    host.must('/root/cordon-agent', 'install')
    installDeb('cordon-agent', OLDER)
    expect(host.must('systemctl', 'show', '--property=FragmentPath', '--value', AGENT)).toContain(
      '/lib/systemd/',
    )
    expect(host.run('cordon-agent', 'uninstall').stderr).toContain('comes from a package')
    host.must('dpkg', '--purge', 'cordon-agent')
    expect(files().filter((path) => !left.has(path) && path !== '/etc/hosts')).toEqual([])
  })
})
