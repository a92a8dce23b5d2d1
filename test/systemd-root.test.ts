/**
 * The host that tests of logons, accounts, units and timers run in: all that they need works inside, and nothing
 * is left of it. Runs with `npm run test:long`, as root; the base comes from Debian's mirror the first time.
 */
import { existsSync, readFileSync, readlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createControlGroup } from './testing/control-group.ts'
import { type SystemdRoot, startSystemdRoot, whyNoSystemdRoot } from './testing/systemd-root.ts'

const isLong = process.env['CORDON_TEST_LONG'] === '1'
const reason = isLong ? whyNoSystemdRoot((line) => console.error(`cordon: ${line}`)) : 'only in the long run'
if (isLong && reason !== null) console.error(`cordon: the host that boots is not tested: ${reason}`)

const PASSWORD = 'harmless-1'
const WAIT = { timeout: 90_000, interval: 250 }

describe.skipIf(reason !== null)('a host that boots with systemd', { timeout: 180_000 }, () => {
  let host: SystemdRoot

  beforeAll(async () => {
    host = await startSystemdRoot({ network: true })
    await host.must(['useradd', '--create-home', '--shell', '/bin/bash', 'tester'])
    await host.must(['chpasswd'], { input: `tester:${PASSWORD}\n` })
  }, 180_000)
  afterAll(async () => {
    await host?.[Symbol.asyncDispose]()
  }, 120_000)

  const journalOf = (unit: string) =>
    host.must(['journalctl', '--no-pager', '--output=cat', `--unit=${unit}`])
  const sshOptions = [
    ...['-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null', '-o', 'LogLevel=ERROR'],
    ...['-o', 'NumberOfPasswordPrompts=1', '-o', 'ConnectTimeout=20'],
  ]
  const ssh = (options: readonly string[], command: string, environment = {}) =>
    host.runFromNeighbour(
      ['ssh', ...sshOptions, ...options, `tester@${host.sshAddress}`, '-p', String(host.sshPort), command],
      { environment },
    )
  const sshByPassword = async (password: string) => {
    await host.must(['sh', '-c', 'cat > /root/askpass && chmod 700 /root/askpass'], {
      input: `#!/bin/sh\necho '${password}'\n`,
    })
    return ssh(['-o', 'PubkeyAuthentication=no'], 'id --user --name', {
      SSH_ASKPASS: '/root/askpass',
      SSH_ASKPASS_REQUIRE: 'force',
    })
  }

  test('systemd runs as its first process, with the bus, logind, cron, at and sshd', async () => {
    expect(readFileSync(`/proc/${host.leaderPid}/comm`, 'utf8')).toBe('systemd\n')
    expect((await host.must(['cat', '/proc/1/comm'])).trim()).toBe('systemd')
    for (const unit of ['dbus', 'systemd-logind', 'cron', 'atd', 'ssh'])
      expect((await host.must(['systemctl', 'is-active', unit])).trim()).toBe('active')
    expect(existsSync(join(host.rootPath, 'etc/debian_version'))).toBe(true)
  })

  test('its namespaces are its own', () => {
    for (const name of ['pid', 'mnt', 'net', 'uts', 'ipc', 'cgroup']) {
      const own = readFileSync(`/proc/${host.leaderPid}/cgroup`, 'utf8')
      expect(own).toContain('cordon-test-')
      expect(host.leaderPid).toBeGreaterThan(1)
      expect(namespaceOf(host.leaderPid, name)).not.toBe(namespaceOf(process.pid, name))
    }
  })

  test('a key logs on by ssh, from the neighbour`s address, in a session of logind', async () => {
    await host.must(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', '/root/key'])
    await host.must(['install', '-d', '-o', 'tester', '-m', '700', '/home/tester/.ssh'])
    await host.must(['install', '-o', 'tester', '/root/key.pub', '/home/tester/.ssh/authorized_keys'])
    const ran = await ssh(
      ['-i', '/root/key', '-o', 'BatchMode=yes'],
      'echo $SSH_CONNECTION; cat /proc/self/cgroup',
    )
    expect(ran).toMatchObject({ status: 0, stderr: '' })
    expect(ran.stdout).toMatch(new RegExp(`^${host.neighbourAddress} \\d+ ${host.sshAddress} 22$`, 'm'))
    expect(ran.stdout).toMatch(/\/user\.slice\/user-\d+\.slice\/session-c?\d+\.scope$/m)
    expect(await journalOf('ssh')).toContain(`Accepted publickey for tester from ${host.neighbourAddress}`)
  })

  test('the right password logs on by ssh, a wrong one does not, nor does an unknown user', async () => {
    expect(await sshByPassword(PASSWORD)).toMatchObject({ status: 0, stdout: 'tester\n' })
    const wrong = await sshByPassword('wrong')
    expect(wrong.status).toBe(255)
    expect(wrong.stderr).toContain('Permission denied')
    const unknown = await host.runFromNeighbour(
      ['ssh', ...sshOptions, `nobody-here@${host.sshAddress}`, 'true'],
      { environment: { SSH_ASKPASS: '/root/askpass', SSH_ASKPASS_REQUIRE: 'force' } },
    )
    expect(unknown.status).toBe(255)
    const journal = await journalOf('ssh')
    expect(journal).toContain(`Failed password for tester from ${host.neighbourAddress}`)
    expect(journal).toContain(`Failed password for invalid user nobody-here from ${host.neighbourAddress}`)
    expect(await host.must(['lastb', '--ip'])).toContain(host.neighbourAddress)
  })

  test('su and sudo change users, and a wrong password is refused', async () => {
    expect(await host.must(['su', '-', 'tester', '-c', 'id --user --name'])).toBe('tester\n')
    await host.must(['useradd', '--create-home', 'other'])
    const asOther = (password: string) =>
      host.run(
        [
          'setpriv',
          '--reuid=other',
          '--regid=other',
          '--clear-groups',
          'su',
          'tester',
          '-c',
          'id --user --name',
        ],
        {
          input: `${password}\n`,
        },
      )
    expect(await asOther(PASSWORD)).toMatchObject({ status: 0, stdout: 'tester\n' })
    expect(await asOther('wrong')).toMatchObject({ status: 1, stdout: '' })
    expect(await host.must(['sudo', '--user=tester', 'id', '--user', '--name'])).toBe('tester\n')
    const refused = await host.run(
      ['setpriv', '--reuid=other', '--clear-groups', 'sudo', '--stdin', 'true'],
      {
        input: 'wrong\n',
      },
    )
    expect(refused.status).toBe(1)
  })

  test('accounts and groups are made, changed and removed', async () => {
    await host.must(['useradd', 'made'])
    await host.must(['usermod', '--comment', 'changed', '--shell', '/bin/sh', 'made'])
    expect(await host.must(['getent', 'passwd', 'made'])).toContain(':changed:')
    await host.must(['passwd', 'made'], { input: `${PASSWORD}x\n${PASSWORD}x\n` })
    expect(await host.must(['passwd', '--status', 'made'])).toMatch(/^made P /)
    await host.must(['groupadd', 'crowd'])
    await host.must(['usermod', '--append', '--groups', 'crowd', 'made'])
    expect(await host.must(['getent', 'group', 'crowd'])).toMatch(/:made$/m)
    await host.must(['userdel', '--remove', 'made'])
    await host.must(['groupdel', 'crowd'])
    expect((await host.run(['getent', 'passwd', 'made'])).status).toBe(2)
  })

  test('cron takes a table, at runs what it is given', async () => {
    await host.must(['crontab', '-u', 'tester', '-'], { input: '* * * * * touch /home/tester/by-cron\n' })
    expect(await host.must(['cat', '/var/spool/cron/crontabs/tester'])).toContain('by-cron')
    await host.must(['at', 'now'], { input: 'touch /root/by-at\n' })
    await expect.poll(() => existsSync(join(host.rootPath, 'root/by-at')), WAIT).toBe(true)
    // At the next minute.
    await expect.poll(() => existsSync(join(host.rootPath, 'home/tester/by-cron')), WAIT).toBe(true)
    await host.must(['crontab', '-u', 'tester', '-r'])
  })

  test('units and timers are made, enabled, started, stopped, disabled and removed', async () => {
    const unit = (text: string) =>
      `[Unit]\nDescription=Harmless\n${text}\n[Install]\nWantedBy=multi-user.target\n`
    const write = (name: string, text: string) =>
      host.must(['sh', '-c', `cat > /etc/systemd/system/${name}`], { input: unit(text) })
    await write('harmless.service', '[Service]\nExecStart=/bin/sleep infinity')
    await write('harmless.timer', '[Timer]\nOnActiveSec=1h')
    await host.must(['systemctl', 'daemon-reload'])
    for (const name of ['harmless.service', 'harmless.timer']) {
      const state = async () => (await host.run(['systemctl', 'is-active', name])).stdout.trim()
      await host.must(['systemctl', 'enable', name])
      await host.must(['systemctl', 'start', name])
      expect(await state()).toBe('active')
      await host.must(['systemctl', 'stop', name])
      expect(await state()).toBe('inactive')
      await host.must(['systemctl', 'disable', name])
    }
    await host.must(['systemd-run', '--wait', '--unit=once', 'touch', '/root/by-run'])
    expect(existsSync(join(host.rootPath, 'root/by-run'))).toBe(true)
    await host.must(['systemd-run', '--on-active=1h', '--unit=later', 'true'])
    expect(await host.must(['systemctl', 'list-timers', '--no-pager'])).toContain('later.timer')
  })

  test('what leaves something running in it holds nobody up', async () => {
    const ran = await host.run(['sh', '-c', 'echo told; sleep 60 & exit 7'])
    expect(ran).toMatchObject({ status: 7, stdout: 'told\n' })
    await expect(host.must(['no-such-program'])).rejects.toThrow('no-such-program ended with 127')
  })
})

describe.skipIf(reason !== null)('hosts that end', { timeout: 180_000 }, () => {
  test('two run at once without meeting, and leave no process, mount, namespace or control group', async () => {
    const gone: { leaderPid: number; rootPath: string }[] = []
    {
      await using first = await startSystemdRoot({ network: true })
      await using second = await startSystemdRoot({ network: false })
      await first.must(['touch', '/root/first'])
      expect(existsSync(join(second.rootPath, 'root/first'))).toBe(false)
      const reached = await second.run(['sh', '-c', 'exec 3<>/dev/tcp/192.0.2.1/22'])
      expect(reached.status).not.toBe(0)
      gone.push(first, second)
    }
    expect(gone).toHaveLength(2)
    for (const { leaderPid, rootPath } of gone) {
      expect(existsSync(`/proc/${leaderPid}`)).toBe(false)
      expect(existsSync(rootPath)).toBe(false)
      expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(dirname(rootPath))
    }
  })

  test('a control group goes with the groups inside it', async () => {
    const group = createControlGroup()
    expect(group.folders.every((folder) => existsSync(folder))).toBe(true)
    await group[Symbol.asyncDispose]()
    expect(group.folders.some((folder) => existsSync(folder))).toBe(false)
  })
})

function namespaceOf(pid: number, name: string): string {
  return readlinkSync(`/proc/${pid}/ns/${name}`)
}
