/** Each behaviour of `make-activity`, counted by what it leaves: files, connections, /proc, what its children wrote. */
import { spawnSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { Resolver } from 'node:dns/promises'
import { once } from 'node:events'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { compileMakeActivity, compileTinyExit } from './compile.ts'
import { COMPAT_MISSING_STATUS, holdActivity, runActivity, startDnsServer } from './run-activity.ts'

const COUNT = 60
const wordsOf = (text: string) => text.split(' ').filter((word) => word !== '')
const isRoot = process.geteuid?.() === 0

describe.skipIf(!isRoot)('make-activity, which needs root,', () => {
  const work = mkdtempSync(join(tmpdir(), 'cordon-activity-'))
  const folder = join(work, 'files')
  let program: string
  let tiny: string

  beforeAll(() => {
    program = compileMakeActivity(work)
    tiny = compileTinyExit(work)
  })
  beforeEach(() => {
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder)
  })
  afterAll(() => rmSync(work, { recursive: true, force: true }))

  const command = (behaviour: string, ...options: readonly string[]) => [
    program,
    behaviour,
    String(COUNT),
    ...options,
  ]
  const make = async (behaviour: string, ...options: readonly string[]) => {
    const { report, status } = await runActivity(command(behaviour, ...options))
    expect(report).toMatchObject({ behaviour, made: COUNT, failed: 0 })
    expect(report.error).toBeUndefined()
    expect(status).toBe(0)
    return report
  }
  const hold = async (behaviour: string, ...options: readonly string[]) => {
    const held = await holdActivity(command(behaviour, ...options))
    expect(held.report).toMatchObject({ behaviour, made: COUNT, failed: 0 })
    return held
  }
  const namesOf = (pattern: RegExp) =>
    readdirSync(folder, { recursive: true, encoding: 'latin1' }).filter((name) => pattern.test(name))
  const openOf = (pid: number) =>
    readdirSync(`/proc/${pid}/fd`).flatMap((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
  const factsOf = (pid: number) =>
    readdirSync(`/proc/${pid}/fdinfo`).map((fd) => readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'))

  test.each(['', '--io-uring', '--threads 3', '--deep', '--strange', '--deep --strange'])(
    'files are made, changed and deleted %s',
    async (words) => {
      const all = ['--folder', folder, ...wordsOf(words)]
      const plain = all.filter((option) => option !== '--io-uring')
      await make('file-create', ...all)
      expect(namesOf(/activity-\d/)).toHaveLength(COUNT)
      await make('file-write', ...all)
      await make('file-chmod', ...plain)
      await make('file-chown', ...plain)
      for (const name of namesOf(/activity-\d/)) {
        const facts = statSync(Buffer.from(join(folder, name), 'latin1'))
        expect(facts).toMatchObject({ size: 9, uid: 65_534, gid: 65_534 })
        expect(facts.mode & 0o777).toBe(0o755)
      }
      await make('file-setxattr', ...all)
      await make('file-link', ...all)
      await make('file-symlink', ...all)
      expect(namesOf(/(^|\/)linked-\d/)).toHaveLength(COUNT)
      expect(namesOf(/symlinked-\d/)).toHaveLength(COUNT)
      await make('file-rename', ...all)
      expect(namesOf(/renamed-\d/)).toHaveLength(COUNT)
      expect(namesOf(/activity-\d/)).toHaveLength(0)
      await make('file-create', ...all)
      await make('file-delete', ...all)
      expect(namesOf(/activity-\d/)).toHaveLength(0)
    },
  )

  test('the names asked for are strange, and the folders deep', async () => {
    await make('file-create', '--folder', folder, '--deep', '--strange')
    const [name = ''] = namesOf(/activity-7\n/)
    expect(name).toContain('\n\x1b[31m\xff\xfe"\\')
    expect(name.split('/')).toHaveLength(201)
  })

  test.each(['exec', 'exec-proc-fd', 'exec-memfd', 'exec-deleted'])(
    '%s runs a program once each time, with arguments of its own',
    async (behaviour) => {
      const told = join(work, `${behaviour}.told`)
      const script = join(work, `${behaviour}.sh`)
      // A script tells what ran without any help of the program under test.
      writeFileSync(script, `#!/bin/sh\necho "$1" >> ${told}\nexit 3\n`)
      chmodSync(script, 0o755)
      const report = await make(behaviour, '--program', script, '--folder', folder)
      const lines = readFileSync(told, 'utf8').trim().split('\n')
      expect(new Set(lines)).toEqual(
        new Set(Array.from({ length: COUNT }, (_, index) => `--sequence=${index}`)),
      )
      expect(new Set(report.children).size).toBe(COUNT)
      expect(namesOf(/./)).toEqual([])
      await make(behaviour, '--program', tiny, '--folder', folder, '--threads', '4')
    },
  )

  test.each(['fork-exit', 'fork-signal', 'setuid', 'setresuid', 'capset'])(
    '%s is done by children',
    async (behaviour) => {
      const report = await make(behaviour, '--threads', '2')
      expect(new Set(report.children).size).toBe(COUNT)
    },
  )

  test.each(['ptrace-attach', 'ptrace-seize', 'ptrace-peek', 'ptrace-poke', 'vm-read', 'vm-write'])(
    '%s reaches a child of its own',
    async (behaviour) => {
      expect((await make(behaviour)).children).toHaveLength(1)
      expect((await make(behaviour, '--threads', '3')).children).toHaveLength(3)
    },
  )

  test.each(['map-writable-executable', 'protect-executable', 'unshare', 'setns', 'umount', 'mount'])(
    '%s succeeds each time',
    async (behaviour) => {
      await make(behaviour, ...(behaviour.endsWith('mount') ? ['--folder', folder] : []))
      expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(folder)
    },
  )

  test.each(['', '--relative', '--io-uring', '--swap', '--swap --relative'])(
    'memory of a child is opened %s',
    async (words) => {
      const options = wordsOf(words)
      for (const behaviour of ['mem-open-read', 'mem-open-write']) {
        await using held = await hold(behaviour, '--folder', folder, ...options)
        const child = held.report.children?.[0]
        const open = openOf(held.report.pid)
        const lured = held.report.lured ?? 0
        expect(open.filter((path) => path === `/proc/${child}/mem`)).toHaveLength(COUNT - lured)
        expect(open.filter((path) => path === `/proc/${child}/comm`)).toHaveLength(lured)
      }
    },
  )

  test('files in memory have names of their own', async () => {
    await using held = await hold('memfd-create')
    const names = openOf(held.report.pid).filter((path) => /^\/memfd:activity-\d+ \(deleted\)$/.test(path))
    expect(new Set(names).size).toBe(COUNT)
  })

  test('libraries are mapped from files of their own', async () => {
    await using held = await hold('map-library', '--program', tiny, '--folder', folder)
    const maps = readFileSync(`/proc/${held.report.pid}/maps`, 'utf8')
    expect(new Set(maps.match(/ r-xp .*\/library-\d+$/gm)).size).toBe(COUNT)
  })

  test('what an argument is overwritten with is taken as often as is told', async () => {
    const { lured } = await make('file-create', '--folder', folder, '--swap')
    expect(namesOf(/^Activity-/)).toHaveLength(lured ?? -1)
    expect(namesOf(/^activity-/)).toHaveLength(COUNT - (lured ?? 0))
    await make('exec', '--program', tiny, '--folder', folder, '--swap')
    await make('tcp-connect', '--swap')
  })

  test.each(['', '--io-uring', '--threads 3'])('connections arrive from the ports told %s', async (words) => {
    const options = wordsOf(words)
    const ports: number[] = []
    const server = createServer((socket) => {
      ports.push(socket.remotePort ?? 0)
      socket.on('error', () => undefined).end()
    })
    await once(server.listen(0, '127.0.0.1'), 'listening')
    const { port } = server.address() as AddressInfo
    const report = await make('tcp-connect', '--port', String(port), ...options)
    await expect.poll(() => ports.length, { timeout: 10_000 }).toBe(COUNT)
    expect(ports.sort()).toEqual([...(report.ports ?? [])].sort())
    await new Promise((resolve) => server.close(resolve))
  })

  test.each(['', '--io-uring', '--address ::1', '--bytes 200000'])(
    'connections are accepted and bytes exchanged %s',
    async (words) => {
      const options = wordsOf(words)
      const exchanged = await make('tcp-exchange', ...options)
      expect(exchanged.ports).toHaveLength(COUNT)
      if (options[0] === '--bytes') return
      const accepted = await make('tcp-accept', ...options)
      expect(accepted.ports?.every((port) => port > 0)).toBe(true)
      const { report, status } = await runActivity(command('tcp-refused', ...options))
      expect(report).toMatchObject({ made: COUNT, failed: COUNT, error: 'ECONNREFUSED' })
      expect(status).toBe(0)
    },
  )

  test.each(['', '--io-uring'])('datagrams arrive, one for each peer %s', async (words) => {
    const options = wordsOf(words)
    let received = 0
    const socket = createSocket('udp4').on('message', () => received++)
    socket.bind(0)
    await once(socket, 'listening')
    await make('udp-flow', '--port', String(socket.address().port), ...options)
    await expect.poll(() => received, { timeout: 10_000 }).toBe(COUNT)
    socket.close()
  })

  test.each(['', '--io-uring'])('sockets are held open %s', async (words) => {
    const options = wordsOf(words)
    {
      await using held = await hold('listen', ...options)
      const rows = readFileSync(`/proc/${held.report.pid}/net/tcp`, 'utf8')
      for (const port of held.report.ports ?? [])
        expect(rows).toContain(
          `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')} 00000000:0000 0A`,
        )
    }
    for (const behaviour of ['raw-socket', 'packet-socket']) {
      await using held = await hold(behaviour, ...options)
      const sockets = openOf(held.report.pid).flatMap((path) => /^socket:\[(\d+)\]$/.exec(path)?.[1] ?? [])
      const table = behaviour === 'raw-socket' ? 'raw' : 'packet'
      const rows = readFileSync(`/proc/${held.report.pid}/net/${table}`, 'utf8').split(/\s+/)
      expect(sockets.filter((inode) => rows.includes(inode))).toHaveLength(COUNT)
    }
  })

  test('names are asked for over UDP and TCP in every way, and answered', async () => {
    const ways = [[], ['--tcp'], ['--split'], ['--tcp', '--split'], ['--io-uring', '--split'], ['--strange']]
    const at = ['--address', '127.0.0.53', '--port', '5399']
    const server = await startDnsServer([program, 'dns-serve', String(ways.length * COUNT + 1), ...at])
    const resolver = new Resolver()
    resolver.setServers(['127.0.0.53:5399'])
    expect(await resolver.resolve4('somewhere.test')).toEqual(['192.0.2.53'])
    for (const way of ways) await make('dns-query', ...at, ...way)
    expect(await server.served).toMatchObject({
      status: 0,
      report: { made: ways.length * COUNT + 1, failed: 0 },
    })
  })

  test('names asked for are what a server sees', async () => {
    const names = new Set<string>()
    const socket = createSocket('udp4')
    socket.on('message', (message, peer) => {
      names.add(message.toString('latin1', 13, 13 + (message[12] ?? 0)))
      const answer = Buffer.concat([message, Buffer.from('c00c00010001000000000004c0000235', 'hex')])
      answer[2] = 0x81
      socket.send(answer, peer.port, peer.address)
    })
    socket.bind(0, '127.0.0.1')
    await once(socket, 'listening')
    await make('dns-query', '--port', String(socket.address().port), '--name', 'seen')
    socket.close()
    expect(names).toEqual(new Set(Array.from({ length: COUNT }, (_, index) => `seen-${index}`)))
  })

  test('modules are asked for, and never loaded', async () => {
    const before = spawnSync('cat', ['/proc/modules']).stdout.toString()
    for (const behaviour of ['finit-module', 'init-module', 'delete-module']) {
      const { report, status } = await runActivity(command(behaviour, '--folder', folder))
      expect(report).toMatchObject({ made: COUNT, failed: COUNT })
      expect(status).toBe(0)
    }
    expect(spawnSync('cat', ['/proc/modules']).stdout.toString()).toBe(before)
  })

  test('eBPF programs are loaded and attached', async () => {
    {
      await using held = await hold('bpf-program')
      expect(factsOf(held.report.pid).filter((facts) => /^prog_type:\s+1$/m.test(facts))).toHaveLength(COUNT)
    }
    await using held = await hold('bpf-attach')
    expect(
      factsOf(held.report.pid).filter((facts) => facts.includes('tp_name:\tsched_process_exec')),
    ).toHaveLength(COUNT)
  })

  test('a block device is opened by a node of the test`s own', async () => {
    const device = join(folder, 'disk')
    // The first loop device, with nothing behind it.
    expect(spawnSync('mknod', [device, 'b', '7', '0']).status).toBe(0)
    await using held = await hold('open-device', '--path', device)
    expect(openOf(held.report.pid).filter((path) => path === device)).toHaveLength(COUNT)
  })

  test('mounts are in a namespace of its own', async () => {
    await using held = await hold('mount', '--folder', folder)
    const mounts = readdirSync(`/proc/${held.report.pid}/task`).map((task) =>
      readFileSync(`/proc/${held.report.pid}/task/${task}/mountinfo`, 'utf8'),
    )
    const counts = mounts.map((text) => text.match(/ - tmpfs activity /g)?.length ?? 0)
    expect(counts.sort()).toEqual([0, COUNT])
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(folder)
  })

  test('a setting of a network namespace is written, and stays', async () => {
    const path = '/proc/sys/net/ipv4/ip_default_ttl'
    const { report, status } = await runActivity([
      ...['unshare', '--net', '--'],
      ...command('sysctl-write', '--path', path),
    ])
    expect(report).toMatchObject({ made: COUNT, failed: 0 })
    expect(status).toBe(0)
  })

  test('signals are sent to the process that is named', async () => {
    await make('signal', '--pid', String(process.pid))
    const { report, status } = await runActivity(command('signal', '--pid', '4194304'))
    expect(report).toMatchObject({ failed: COUNT, error: 'ESRCH' })
    expect(status).toBe(1)
  })

  test('32-bit calls do the same, or their absence is told', async () => {
    const ran = spawnSync(program, ['file-create', String(COUNT), '--compat', '--folder', folder])
    if (ran.status === COMPAT_MISSING_STATUS)
      expect(ran.stderr.toString()).toContain('no 32-bit system calls')
    else expect(namesOf(/activity-\d/)).toHaveLength(COUNT)
  })

  test.each([
    ['no-such-behaviour', '1'],
    ['exec', '0'],
    ['exec', '-1'],
    ['exec', '1x'],
    ['exec', '99999999999999999999'],
    ['exec', '1', '--no-such-option'],
    ['exec', '1', '--io-uring'],
    ['exec', '1', '--threads', '0'],
    ['exec', '1', '--program', ''],
    ['exec', '1', '--program', 'x'.repeat(5_000)],
    ['file-create', '1', '--compat', '--io-uring'],
    ['dns-serve', '1', '--threads', '2'],
    ['exec'],
  ])('what it does not know is refused: %s %s %s', (...words) => {
    const ran = spawnSync(program, words, { encoding: 'utf8' })
    expect(ran.status).toBe(2)
    expect(ran.stderr).toContain('make-activity list')
    expect(ran.stdout).toBe('')
  })

  test('what cannot be prepared is told, and nothing is made', async () => {
    const { report, status } = await runActivity(
      command('exec', '--program', '/no/such/program', '--folder', folder),
    )
    expect(report).toMatchObject({ made: 0, error: 'ENOENT' })
    expect(status).toBe(1)
  })
})
