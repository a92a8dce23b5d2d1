import { execFileSync, spawnSync } from 'node:child_process'
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ACTOR_PID, createRootFolder, startWatch } from './testing/watched-root.ts'

const PASSWD = 'root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000:Alice:/home/alice:/bin/bash\n'
const SHADOW = 'root:*:19000:0:99999:7:::\nalice:$y$j9T$secretsalt$secrethash:19000:0:99999:7:::\n'
const GROUP = 'root:x:0:\nalice:x:1000:\nsudo:x:27:\n'

let folder: ReturnType<typeof createRootFolder>
let watched: Awaited<ReturnType<typeof startWatch>>
beforeEach(async () => {
  folder = createRootFolder()
  folder.put('/etc/passwd', PASSWD)
  folder.put('/etc/shadow', SHADOW, 0o640)
  folder.put('/etc/group', GROUP)
  folder.put('/etc/gshadow', 'root:*::\nalice:!::\nsudo:*::\n', 0o640)
  watched = await startWatch(folder.root)
})
afterEach(async () => {
  await watched.stop()
  folder.remove()
})

/** As most tools do: a temporary file that is renamed over the old one. */
function replace(path: string, content: string): void {
  writeFileSync(folder.at(`${path}+`), content)
  renameSync(folder.at(`${path}+`), folder.at(path))
  watched.tell(path, 'rename', { previousPath: folder.at(`${path}+`) })
}

test('what is there at the start is no news, nor is a file that is written again as it was', async () => {
  replace('/etc/passwd', PASSWD)
  expect(await watched.stop()).toEqual([])
})

test('an account that is added by hand is told with its line and the process that wrote it', async () => {
  appendFileSync(folder.at('/etc/passwd'), 'backdoor::0:0::/root:/bin/sh\n')
  watched.tell('/etc/passwd')
  expect(await watched.changes(1)).toEqual([
    {
      'event.action': 'user-created',
      'user.target.name': 'backdoor',
      'user.target.id': '0',
      'cordon.change.after': 'backdoor::0:0::/root:/bin/sh',
      'file.path': folder.at('/etc/passwd'),
    },
  ])
  expect(watched.records[0]).toMatchObject({
    kind: 'configuration',
    timestampMs: 1_700_000_000_000,
    process: { pid: ACTOR_PID, startTicks: null },
  })
})

test('a change names its fields; another name for the same user is a change, too', async () => {
  replace(
    '/etc/passwd',
    PASSWD.replace('alice:x:1000:1000:Alice:/home/alice:/bin/bash', 'alice:x:0:1000:A:/home/alice:/bin/sh'),
  )
  expect(await watched.changes(1)).toMatchObject([
    { 'event.action': 'user-modified', 'cordon.change.fields': ['uid', 'comment', 'shell'] },
  ])
  await new Promise((resolve) => setTimeout(resolve, 30))
  replace('/etc/passwd', 'root:x:0:0:root:/root:/bin/bash\nmallory:x:0:1000:A:/home/alice:/bin/sh\n')
  expect((await watched.changes(2)).slice(1)).toMatchObject([
    {
      'event.action': 'user-modified',
      'user.target.name': 'mallory',
      'cordon.change.fields': ['name'],
      'cordon.change.before': 'alice:x:0:1000:A:/home/alice:/bin/sh',
    },
  ])
})

test('a new password, a lock and an expiry are told, and never a hash', async () => {
  replace('/etc/shadow', SHADOW.replace('secrethash:19000', 'othersecret:20000'))
  await watched.changes(1)
  await new Promise((resolve) => setTimeout(resolve, 30))
  replace(
    '/etc/shadow',
    SHADOW.replace(
      '$y$j9T$secretsalt$secrethash:19000:0:99999:7::',
      '!$y$j9T$secretsalt$othersecret:20000:0:99999:7::1',
    ),
  )
  const changes = await watched.changes(2)
  expect(changes).toMatchObject([
    {
      'event.action': 'user-modified',
      'user.target.name': 'alice',
      'user.target.id': '1000',
      'cordon.change.fields': ['password'],
    },
    { 'event.action': 'user-modified', 'cordon.change.fields': ['locked', 'expiry'] },
  ])
  expect(JSON.stringify(changes)).not.toMatch(/secret|\$y\$/)
})

test('a hash that stands in passwd itself is hidden, an empty password is shown', async () => {
  replace('/etc/passwd', PASSWD.replace('alice:x', 'alice:$1$secret$hash').replace('root:x', 'root:'))
  const changes = await watched.changes(2)
  expect(changes.map((change) => 'cordon.change.after' in change && change['cordon.change.after'])).toEqual([
    'root::0:0:root:/root:/bin/bash',
    'alice:(hidden):1000:1000:Alice:/home/alice:/bin/bash',
  ])
  expect(JSON.stringify(changes)).not.toContain('secret')
})

test('who joins a group is told, with the group', async () => {
  replace('/etc/group', GROUP.replace('sudo:x:27:', 'sudo:x:27:alice'))
  expect(await watched.changes(2)).toMatchObject([
    {
      'event.action': 'group-modified',
      'group.name': 'sudo',
      'group.id': '27',
      'cordon.change.before': 'sudo:x:27:',
      'cordon.change.after': 'sudo:x:27:alice',
    },
    {
      'event.action': 'user-modified',
      'user.target.name': 'alice',
      'cordon.change.fields': ['groups'],
      'cordon.change.before': '',
      'cordon.change.after': 'sudo',
    },
  ])
})

test('a passwd that is removed for an instant is not the end of all accounts, one that stays away is', async () => {
  rmSync(folder.at('/etc/passwd'))
  watched.tell('/etc/passwd', 'deletion')
  writeFileSync(folder.at('/etc/passwd'), PASSWD)
  watched.tell('/etc/passwd', 'creation')
  await new Promise((resolve) => setTimeout(resolve, 200))
  expect(watched.records).toEqual([])
  rmSync(folder.at('/etc/passwd'))
  watched.tell('/etc/passwd', 'deletion')
  const changes = await watched.changes(2)
  expect(changes.map((change) => change['event.action'])).toEqual(['user-deleted', 'user-deleted'])
})

test.each([
  ['zero bytes', Buffer.alloc(4_096)],
  ['a line of 2 MB', Buffer.from(`${'a'.repeat(2_000_000)}\n`)],
  ['a name of 2 MB', Buffer.from(`${'a'.repeat(2_000_000)}:x:1:1:::\n`)],
  ['no UTF-8', Buffer.from([0xff, 0xfe, 0x3a, 0x78, 0x3a, 0x30, 0x3a, 0x30, 0x0a])],
  ['nothing but colons', Buffer.from(':::::::\n::\n')],
  ['names of objects', Buffer.from('__proto__:x:0:0:::\nconstructor:x:0:0:::\n')],
  [
    '100,000 accounts',
    Buffer.from(Array.from({ length: 100_000 }, (_, n) => `u${n}:x:${n}:0:::`).join('\n')),
  ],
])('hostile passwd: %s', async (_, content) => {
  folder.put('/etc/passwd', content)
  watched.tell('/etc/passwd')
  await new Promise((resolve) => setTimeout(resolve, 200))
  expect((await watched.stop()).length).toBeLessThanOrEqual(256)
})

describe.skipIf(process.geteuid?.() !== 0 || !existsSync('/usr/sbin/useradd'))(
  'with the tools of shadow',
  () => {
    /** Runs a tool on the copied root and hands in what a file layer would. */
    function run(tool: string, ...parameters: string[]): void {
      const before = ['passwd', 'shadow', 'group', 'gshadow'].map((name) => read(name))
      const ran = spawnSync(`/usr/sbin/${tool}`, ['-P', folder.root, ...parameters], {
        timeout: 20_000,
        encoding: 'utf8',
      })
      expect(ran.status, ran.stderr).toBe(0)
      for (const [index, name] of ['passwd', 'shadow', 'group', 'gshadow'].entries()) {
        if (read(name) === before[index]) continue
        watched.tell(`/etc/${name}`, 'rename', { previousPath: folder.at(`/etc/${name}+`) })
      }
    }
    const read = (name: string) => readFileSync(folder.at(`/etc/${name}`), 'utf8')

    beforeEach(() => {
      cpSync('/etc/login.defs', folder.at('/etc/login.defs'))
      mkdirSync(folder.at('/etc/default'), { recursive: true })
    })

    test('useradd is one new user and one new group, userdel their end', async () => {
      run('useradd', '-u', '2500', '-U', '-G', 'sudo', '-s', '/bin/sh', '-p', '$6$salt$hash', 'carol')
      const changes = await watched.changes(3)
      expect(changes.map((change) => change['event.action'])).toEqual([
        'user-created',
        'group-modified',
        'group-created',
      ])
      expect(changes[0]).toMatchObject({ 'user.target.name': 'carol', 'user.target.id': '2500' })
      await new Promise((resolve) => setTimeout(resolve, 30))
      run('userdel', 'carol')
      const ended = (await watched.changes(6)).slice(3)
      expect(ended.map((change) => change['event.action']).sort()).toEqual([
        'group-deleted',
        'group-modified',
        'user-deleted',
      ])
      expect(JSON.stringify([changes, ended])).not.toContain('$6$')
    })

    test('usermod tells the shell, the groups, the lock and the expiry', async () => {
      run('usermod', '-s', '/bin/sh', '-aG', 'sudo', '-L', '-e', '2030-01-01', 'alice')
      const changes = await watched.changes(4)
      const fields = changes.flatMap((change) =>
        change['event.action'] === 'user-modified' ? [change['cordon.change.fields']] : [],
      )
      expect(fields).toEqual([['shell'], ['locked', 'expiry'], ['groups']])
    })

    test('a password set by chpasswd is one change of the user', async () => {
      execFileSync('/usr/sbin/usermod', ['-P', folder.root, '-p', '$6$new$hash', 'alice'], {
        timeout: 20_000,
      })
      watched.tell('/etc/shadow', 'rename')
      watched.tell('/etc/passwd', 'rename')
      expect(await watched.changes(1)).toMatchObject([{ 'cordon.change.fields': ['password'] }])
      expect(await watched.stop()).toHaveLength(1)
    })
  },
)
