/** The watch behind the layer that feeds it, with the programs that really change configuration. */
import { execFileSync, spawn } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { loadBuiltAddon } from '../../native/testing/compile.ts'
import { createFanotifySensor } from '../fanotify/fanotify-sensor.ts'
import type { ConfigurationRecord, SensorRecord } from '../records.ts'
import { listSafely, readSafely } from '../safe-read.ts'
import { unmount } from '../testing/unmount.ts'
import { createConfigurationWatch } from './configuration-watch.ts'
import { expectEvent } from './testing/watched-root.ts'

const asRoot = process.geteuid?.() === 0

describe.skipIf(!asRoot)('behind fanotify', () => {
  if (!asRoot) return
  const native = loadBuiltAddon()
  const root = mkdtempSync(join(tmpdir(), 'cordon-configuration-'))
  let records: ConfigurationRecord[]
  let stop: AbortController
  let ended: Promise<unknown>

  beforeAll(() => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'cordon-test', root])
    for (const folder of ['etc/cron.d', 'etc/default', 'etc/systemd/system', 'home', 'root/.ssh']) {
      mkdirSync(join(root, folder), { recursive: true })
    }
    cpSync('/etc/login.defs', join(root, 'etc/login.defs'))
    execFileSync('/bin/sh', [
      '-c',
      'cd "$0" && echo root:x:0:0::/root:/bin/sh > etc/passwd && echo "root:*:1::::::" > etc/shadow && echo root:x:0: > etc/group && echo "root:*::" > etc/gshadow && mkdir etc/skel && echo umask > etc/skel/.profile',
      root,
    ])
  })
  afterAll(() => {
    unmount(root)
    rmdirSync(root)
  })
  beforeEach(async () => {
    records = []
    stop = new AbortController()
    const watch = createConfigurationWatch({ read: readSafely, list: listSafely, clock: Date.now, root })
    const files = createFanotifySensor({ native, listMountPoints: () => [root], drainIntervalMs: 5 })
    const attached = Promise.withResolvers<void>()
    const add = (batch: readonly SensorRecord[]) => {
      for (const record of batch) if (record.kind === 'configuration') records.push(record)
    }
    ended = Promise.all([
      watch.run(add, stop.signal, attached.resolve),
      files.run(
        (batch) => {
          for (const record of batch) if (record.kind === 'file') watch.observe(record)
        },
        stop.signal,
        () => undefined,
      ),
    ])
    await attached.promise
  })
  afterEach(async () => {
    stop.abort()
    await ended
  })

  async function run(program: string, ...parameters: string[]): Promise<number> {
    const child = spawn(program, parameters, { stdio: 'ignore', timeout: 20_000 })
    const code = await new Promise((resolve) => child.once('exit', resolve))
    expect(code).toBe(0)
    return child.pid ?? 0
  }
  /** What was told once nothing more comes. */
  async function told() {
    await vi.waitFor(() => expect(records.length).toBeGreaterThan(0), 10_000)
    await new Promise((resolve) => setTimeout(resolve, 500))
    for (const { change } of records) expectEvent(change)
    return records.map(({ change, process }) => [
      change['event.action'],
      'user.target.name' in change ? change['user.target.name'] : change['file.path']?.slice(root.length),
      process?.pid,
    ])
  }

  test.skipIf(!existsSync('/usr/sbin/useradd'))(
    'useradd with a home is one user and one group, by its process',
    async () => {
      const pid = await run(
        '/usr/sbin/useradd',
        '-P',
        root,
        '-k',
        join(root, 'etc/skel'),
        '-m',
        '-U',
        '-s',
        '/bin/sh',
        'dave',
      )
      expect((await told()).sort()).toEqual([
        ['group-created', '/etc/group', pid],
        ['user-created', 'dave', pid],
      ])
    },
  )

  test('a shell that writes a crontab, appends a key and swaps passwd is the actor of all three', async () => {
    const key = `ssh-ed25519 ${Buffer.concat([Buffer.from([0, 0, 0, 11]), Buffer.from('ssh-ed25519'), Buffer.alloc(36, 1)]).toString('base64')}`
    const script = `echo '* * * * * root id' > etc/cron.d/evil
      echo '${key} me' >> root/.ssh/authorized_keys
      sed 's/^root:x/root:/' etc/passwd > etc/new && mv etc/new etc/passwd`
    const shell = spawn('/bin/sh', ['-c', script], { cwd: root, stdio: 'ignore' })
    await new Promise((resolve) => shell.once('exit', resolve))
    const events = await told()
    expect(events.map(([action, of]) => [action, of]).sort()).toEqual([
      ['scheduled-task-changed', '/etc/cron.d/evil'],
      ['ssh-key-added', 'root'],
      ['user-modified', 'root'],
    ])
    const byShell = events.filter(([action]) => action !== 'user-modified')
    expect(byShell.every(([, , pid]) => pid === shell.pid)).toBe(true)
  })

  test.skipIf(!existsSync('/usr/bin/systemctl'))('systemctl enables, masks and unmasks a unit', async () => {
    await run(
      '/bin/sh',
      '-c',
      `printf '[Service]\\nExecStart=/bin/id\\n[Install]\\nWantedBy=multi-user.target\\n' > ${root}/etc/systemd/system/evil.service`,
    )
    await told()
    const steps: [string, number][] = []
    for (const verb of ['enable', 'disable']) {
      const pid = await run('/usr/bin/systemctl', `--root=${root}`, verb, 'evil.service')
      steps.push([verb, pid])
      await told()
    }
    steps.push(['mask', await run('/usr/bin/systemctl', `--root=${root}`, 'mask', 'auditd.service')])
    await told()
    const changes = records.map(({ change, process }) => [
      'cordon.operation' in change ? change['cordon.operation'] : change['event.action'],
      process?.pid,
    ])
    expect(changes.slice(1)).toEqual([
      ['enabled', steps[0]?.[1]],
      ['disabled', steps[1]?.[1]],
      ['masked', steps[2]?.[1]],
    ])
    expect(changes[0]?.[0]).toBe('service-created')
  })
})
