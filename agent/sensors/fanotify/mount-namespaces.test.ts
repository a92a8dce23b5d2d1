import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readlinkSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { loadBuiltAddon } from '../../native/testing/compile.ts'
import type { FileRecord, SensorRecord } from '../records.ts'
import { unmount } from '../testing/unmount.ts'
import { createFanotifySensor } from './fanotify-sensor.ts'
import { createMountNamespaces } from './mount-namespaces.ts'

const asRoot = process.geteuid?.() === 0

async function until(condition: () => boolean): Promise<void> {
  const deadlineMs = Date.now() + 10_000
  while (!condition()) {
    if (Date.now() > deadlineMs) throw new Error('nothing came within 10 s')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

describe.skipIf(!asRoot)('mount namespaces of other processes', () => {
  if (!asRoot) return
  const native = loadBuiltAddon()
  const base = mkdtempSync(join(tmpdir(), 'cordon-namespaces-'))
  const at = (name: string) => join(base, name)
  const containers: ChildProcess[] = []

  beforeAll(() => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'cordon-test', base])
  })
  afterEach(async () => {
    for (const container of containers.splice(0)) await end(container)
  })
  afterAll(() => {
    unmount(base)
    rmdirSync(base)
  })

  async function end(container: ChildProcess) {
    if (container.exitCode !== null || container.signalCode !== null) return
    const ended = once(container, 'exit')
    container.kill('SIGKILL')
    await ended
  }

  /** A shell in a mount namespace of its own, which has run `setup` and then runs what it is sent. */
  async function startContainer(setup: string) {
    const script = `set -e; ${setup}\necho ready; while read -r line; do eval "$line"; echo done; done`
    const child = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    containers.push(child)
    let output = ''
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString('latin1')
    })
    await until(() => output.includes('ready'))
    return {
      child,
      pid: child.pid ?? 0,
      async run(line: string) {
        output = ''
        child.stdin.write(`${line}\n`)
        await until(() => output.includes('done'))
      },
    }
  }

  function startSensor(rescanIntervalMs = 50) {
    const records: SensorRecord[] = []
    const stop = new AbortController()
    const namespaces = createMountNamespaces()
    const sensor = createFanotifySensor({
      native,
      listMountPoints: () => [base],
      namespaces,
      drainIntervalMs: 5,
      rescanIntervalMs,
    })
    const ended = sensor.run(
      (batch) => records.push(...batch),
      stop.signal,
      () => undefined,
    )
    return {
      sensor,
      namespaces,
      files: () => records.filter((record): record is FileRecord => record.kind === 'file'),
      async stop() {
        stop.abort()
        await ended
        return records.filter((record): record is FileRecord => record.kind === 'file')
      },
    }
  }

  const inodeOf = (pid: number) => Number(/\[(\d+)\]/.exec(readlinkSync(`/proc/${pid}/ns/mnt`))?.[1])
  const shellRoot =
    'for name in bin lib lib64 usr; do [ -e /$name ] || continue; mkdir -p $root/$name; mount --bind /$name $root/$name; done; mkdir -p $root/proc; mount -t proc proc $root/proc'

  /** As container runtimes do it: an overlay over a folder of the host, and then the old root goes. */
  async function startOverlayContainer(folder: string, options = '') {
    for (const part of ['lower', 'upper', 'work', 'merged'])
      mkdirSync(at(`${folder}/${part}`), { recursive: true })
    mkdirSync(at(`${folder}/lower/etc`), { recursive: true })
    const setup = [
      `root=${at(`${folder}/merged`)}`,
      `mount -t overlay -o lowerdir=${at(`${folder}/lower`)},upperdir=${at(`${folder}/upper`)},workdir=${at(`${folder}/work`)}${options} overlay $root`,
      'mkdir -p $root/old $root/tmp',
      shellRoot,
      'mount -t tmpfs -o size=1m tmp $root/tmp',
      'cd $root; pivot_root . old; cd /; umount -l /old',
    ]
    return await startContainer(setup.join('; '))
  }

  test('a write in an overlay container is told with its path on the host and inside', async () => {
    const container = await startOverlayContainer('one')
    const { stop, files, sensor } = startSensor()
    await container.run('echo x > /etc/passwd')
    await container.run('echo x > "/etc/with  spaces"; printf x > /etc/$(printf "\\\\377")')
    const ofFiles = () => files().filter(({ action }) => action !== 'rename')
    await until(() => ofFiles().length >= 3)
    // The overlay makes the folder beside its upper directory and moves it there.
    expect(files()[0]).toMatchObject({ action: 'rename', path: at('one/upper/etc'), containerPath: '/etc' })
    const told = (await stop()).filter(({ action }) => action !== 'rename')
    expect(told.map((record) => [record.path, record.containerPath])).toEqual([
      [at('one/upper/etc/passwd'), '/etc/passwd'],
      [at('one/upper/etc/with  spaces'), '/etc/with  spaces'],
      [
        new Uint8Array(Buffer.concat([Buffer.from(at('one/upper/etc/')), Buffer.from([0xff])])),
        new Uint8Array(Buffer.concat([Buffer.from('/etc/'), Buffer.from([0xff])])),
      ],
    ])
    expect(sensor.refusedMounts()).toEqual([])
  })

  test('a file of the lower folder that the container changes is told under its path inside', async () => {
    mkdirSync(at('nine/lower/etc'), { recursive: true })
    writeFileSync(at('nine/lower/etc/hosts'), 'lower')
    const container = await startOverlayContainer('nine')
    const { stop, files } = startSensor()
    await container.run('echo more >> /etc/hosts')
    const ofHosts = () => files().filter(({ containerPath }) => containerPath === '/etc/hosts')
    await until(() => ofHosts().some(({ contentComplete }) => contentComplete))
    await stop()
    // The overlay copies it up first: for the file system below, it is new.
    expect(ofHosts()[0]).toMatchObject({ action: 'creation', path: at('nine/upper/etc/hosts') })
  })

  test('a file system that is mounted in the container alone is watched through one of its processes', async () => {
    const container = await startOverlayContainer('two')
    const { stop, files, sensor } = startSensor()
    await container.run('echo x > /tmp/dropped')
    await until(() => files().length >= 1)
    const root = `/proc/${container.pid}/root`
    expect(sensor.watchedMountPoints()).toContain(`${root}/tmp`)
    expect(await stop()).toMatchObject([
      { action: 'creation', path: `${root}/tmp/dropped`, containerPath: '/tmp/dropped' },
    ])
    expect(existsSync(`${root}/tmp/dropped`)).toBe(true)
  })

  test('the root of a container that is a plain folder is translated', async () => {
    mkdirSync(at('three/rootfs/old'), { recursive: true })
    mkdirSync(at('three/rootfs/etc'), { recursive: true })
    const container = await startContainer(
      `root=${at('three/rootfs')}; mount --bind $root $root; ${shellRoot}; cd $root; pivot_root . old; cd /; umount -l /old`,
    )
    const { stop, files, namespaces } = startSensor()
    await container.run('echo x > /etc/shadow')
    await until(() => files().length >= 1)
    expect(await stop()).toMatchObject([
      { path: at('three/rootfs/etc/shadow'), containerPath: '/etc/shadow' },
    ])
    expect(namespaces.translate(at('three/rootfs/etc/shadow'))).toEqual({
      rootPrefix: at('three/rootfs'),
      containerPath: '/etc/shadow',
      namespaceInode: inodeOf(container.pid),
    })
    expect(namespaces.translate(at('three/rootfs-other/x'))).toBeNull()
  })

  test('an overlay whose folders lie in a file system of the namespace alone is translated too', async () => {
    mkdirSync(at('four'))
    const folder = at('four')
    const container = await startContainer(
      `mount -t tmpfs -o size=8m own ${folder}; cd ${folder}; mkdir l u w m; mount -t overlay -o lowerdir=${folder}/l,upperdir=${folder}/u,workdir=${folder}/w overlay m`,
    )
    const { stop, files } = startSensor()
    await container.run(`echo x > ${folder}/m/inside`)
    await until(() => files().length >= 1)
    expect(await stop()).toMatchObject([
      { path: `/proc/${container.pid}/root${folder}/u/inside`, containerPath: `${folder}/m/inside` },
    ])
  })

  test('a namespace is watched through another process when the first one ends, and forgotten after the last', async () => {
    mkdirSync(at('five'))
    const container = await startContainer(`mount -t tmpfs -o size=1m own ${at('five')}`)
    const { stop, files, sensor } = startSensor()
    const through = (pid: number) => `/proc/${pid}/root${at('five')}`
    await until(() => sensor.watchedMountPoints().includes(through(container.pid)))
    const second = spawn(
      'nsenter',
      [
        '--mount',
        '--target',
        String(container.pid),
        'sh',
        '-c',
        'echo in; read line; echo x > "$0"; read line',
        join(at('five'), 'late'),
      ],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    )
    containers.push(second)
    await once(second.stdout, 'data')
    await end(container.child)
    await until(() => sensor.watchedMountPoints().includes(through(second.pid ?? 0)))
    expect(sensor.watchedMountPoints()).not.toContain(through(container.pid))
    second.stdin.write('\n')
    await until(() => files().length >= 1)
    expect(files()).toMatchObject([
      { path: `${through(second.pid ?? 0)}/late`, containerPath: join(at('five'), 'late') },
    ])
    await end(second)
    await until(() => sensor.watchedMountPoints().every((mountPoint) => !mountPoint.includes('five')))
    await stop()
  })

  test('a hint makes a new mount watched at once, long before it is time to look again', async () => {
    const { stop, sensor } = startSensor(3_600_000)
    mkdirSync(at('six'))
    const container = await startContainer('true')
    await new Promise((resolve) => setTimeout(resolve, 150))
    await container.run(`mount -t tmpfs -o size=1m own ${at('six')}`)
    sensor.rescan(container.pid)
    expect(sensor.watchedMountPoints()).toContain(`/proc/${container.pid}/root${at('six')}`)
    await stop()
    // Once it has stopped there is nothing to do.
    expect(() => sensor.rescan(container.pid)).not.toThrow()
  })

  test('a file system that takes no mark is listed with what the kernel says', async () => {
    mkdirSync(at('seven/l'), { recursive: true })
    mkdirSync(at('seven/l2'))
    mkdirSync(at('seven/m'))
    const container = await startContainer(
      `mount -t overlay -o lowerdir=${at('seven/l')}:${at('seven/l2')} overlay ${at('seven/m')}`,
    )
    const { stop, sensor } = startSensor()
    await until(() => sensor.refusedMounts().length > 0)
    expect(sensor.refusedMounts()).toEqual([
      {
        mountPoint: `/proc/${container.pid}/root${at('seven/m')}`,
        reason: expect.stringMatching(/^fanotify_mark: .*(EOPNOTSUPP|ENODEV)/),
      },
    ])
    await stop()
  })

  test('looking at namespaces is bounded, and what did not fit is looked at later', async () => {
    mkdirSync(at('eight'))
    const made = await Promise.all(
      Array.from({ length: 3 }, () => startContainer(`mount -t tmpfs -o size=1m own ${at('eight')}`)),
    )
    const namespaces = createMountNamespaces({ processesPerScanMax: 5 })
    const found = () =>
      made.filter(({ pid }) => namespaces.mounts().some(({ root }) => root === `/proc/${pid}/root`))
    namespaces.scan()
    const first = found().length
    for (let scan = 0; scan < 200 && found().length < 3; scan++) namespaces.scan()
    expect(found().length).toBe(3)
    expect(first).toBeLessThan(3)
    const one = createMountNamespaces({ namespacesMax: 1 })
    one.scan()
    expect(new Set(one.mounts().map(({ root }) => root)).size).toBeLessThanOrEqual(1)
  })

  test('a /proc that is not there, or holds nonsense, finds nothing and does not throw', () => {
    const missing = createMountNamespaces({ procFolder: at('none') })
    missing.scan()
    expect(missing.mounts()).toEqual([])
    mkdirSync(at('proc/self/ns'), { recursive: true })
    mkdirSync(at('proc/7/ns'), { recursive: true })
    for (const pid of ['self', '7']) {
      spawnSync('ln', ['-s', pid === 'self' ? 'mnt:[1]' : 'mnt:[2]', at(`proc/${pid}/ns/mnt`)])
      spawnSync('ln', ['-s', '/', at(`proc/${pid}/root`)])
    }
    writeFileSync(at('proc/self/mountinfo'), '1 0 0:1 / / rw - tmpfs own rw\n')
    writeFileSync(
      at('proc/7/mountinfo'),
      '\0\n1 2 3\n9 9 0:9 / / rw - overlay o rw,upperdir=\n8 8 0:8 / /x rw - tmpfs t rw\n7 7 0:7 / /s rw - fuse.sshfs s rw',
    )
    const nonsense = createMountNamespaces({ procFolder: at('proc') })
    nonsense.scan()
    expect(nonsense.mounts()).toEqual([
      { mountPoint: `${at('proc')}/7/root/x`, root: `${at('proc')}/7/root` },
      {
        mountPoint: `${at('proc')}/7/root/s`,
        root: `${at('proc')}/7/root`,
        refusedBecause: expect.stringContaining('not tried'),
      },
      { mountPoint: `${at('proc')}/7/root`, root: `${at('proc')}/7/root` },
    ])
    rmSync(at('proc'), { recursive: true })
  })
})
