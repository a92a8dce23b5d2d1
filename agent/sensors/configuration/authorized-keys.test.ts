import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { keyFileOf, keyFilePatterns, parseAuthorizedKey } from './authorized-keys.ts'
import { createRootFolder, startWatch } from './testing/watched-root.ts'

/** A key as ssh-keygen writes it: its type, and 32 bytes of that key. */
function key(fill: number, type = 'ssh-ed25519'): string {
  const blob = Buffer.alloc(4 + type.length + 4 + 32, fill)
  blob.writeUInt32BE(type.length, 0)
  blob.write(type, 4, 'latin1')
  blob.writeUInt32BE(32, 4 + type.length)
  return `${type} ${blob.toString('base64')}`
}

let folder: ReturnType<typeof createRootFolder>
beforeEach(() => {
  folder = createRootFolder()
  folder.put('/etc/passwd', 'root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/bash\n')
  folder.put('/home/alice/.ssh/authorized_keys', `${key(1)} old@host\n`, 0o600)
  mkdirSync(folder.at('/root/.ssh'), { recursive: true })
})
afterEach(() => folder.remove())

test('a key that is added and one that is taken away are told with their user', async () => {
  const watched = await startWatch(folder.root)
  folder.put('/home/alice/.ssh/authorized_keys', `# mine\n\n${key(2)} new one\n`)
  watched.tell('/home/alice/.ssh/authorized_keys')
  expect(await watched.changes(2)).toMatchObject([
    {
      'event.action': 'ssh-key-added',
      'user.target.name': 'alice',
      'cordon.ssh_key.type': 'ssh-ed25519',
      'cordon.ssh_key.comment': 'new one',
      'file.path': folder.at('/home/alice/.ssh/authorized_keys'),
    },
    { 'event.action': 'ssh-key-removed', 'cordon.ssh_key.comment': 'old@host' },
  ])
  await watched.stop()
})

test('a key is told wherever the configuration of sshd looks, also when that is changed', async () => {
  folder.put('/etc/keys/root', key(3))
  const watched = await startWatch(folder.root)
  folder.put('/root/.ssh/authorized_keys2', key(4))
  watched.tell('/root/.ssh/authorized_keys2', 'creation')
  expect(await watched.changes(1)).toMatchObject([
    { 'event.action': 'ssh-key-added', 'user.target.name': 'root' },
  ])
  folder.put(
    '/etc/ssh/sshd_config.d/keys.conf',
    'authorizedkeysfile "/etc/keys/%u" .ssh/other # and no more\n',
  )
  watched.tell('/etc/ssh/sshd_config.d/keys.conf', 'creation')
  folder.put('/etc/keys/alice', key(5))
  watched.tell('/etc/keys/alice', 'creation')
  folder.put('/home/alice/.ssh/other', key(6))
  watched.tell('/home/alice/.ssh/other', 'creation')
  const changes = (await watched.changes(4)).slice(1)
  expect(changes).toMatchObject([
    { 'event.action': 'persistence-changed', 'cordon.persistence.kind': 'ssh-configuration' },
    { 'event.action': 'ssh-key-added', 'file.path': folder.at('/etc/keys/alice') },
    { 'event.action': 'ssh-key-added', 'file.path': folder.at('/home/alice/.ssh/other') },
  ])
  await watched.stop()
})

test('the home of a new user is watched from its first moment', async () => {
  const watched = await startWatch(folder.root)
  folder.put(
    '/etc/passwd',
    `${readFileSync(folder.at('/etc/passwd'), 'utf8')}bob:x:1001:1001::/srv/bob:/bin/sh\n`,
  )
  folder.put('/srv/bob/.ssh/authorized_keys', key(7))
  folder.put('/etc/skel/.profile', 'umask 022\n')
  folder.put('/srv/bob/.profile', 'umask 022\n')
  folder.put('/srv/bob/.bashrc', 'curl evil\n')
  watched.tell('/etc/passwd')
  watched.tell('/srv/bob/.ssh/authorized_keys', 'creation')
  watched.tell('/srv/bob/.profile', 'creation')
  const changes = await watched.changes(3)
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect(changes.map((change) => change['event.action']).sort()).toEqual([
    'persistence-changed',
    'ssh-key-added',
    'user-created',
  ])
  expect(await watched.stop()).toHaveLength(3)
})

test('keys behind a link are told, and a folder of keys that is moved into place', async () => {
  const watched = await startWatch(folder.root)
  folder.put('/srv/hidden', key(8))
  symlinkSync('../../srv/hidden', folder.at('/root/.ssh/authorized_keys'))
  watched.tell('/root/.ssh/authorized_keys', 'creation', { contentComplete: false })
  expect(await watched.changes(1)).toMatchObject([
    { 'event.action': 'ssh-key-added', 'user.target.name': 'root', 'file.path': folder.at('/srv/hidden') },
  ])
  folder.put('/srv/bob/.ssh/authorized_keys', key(9))
  folder.put(
    '/etc/passwd',
    `${readFileSync(folder.at('/etc/passwd'), 'utf8')}bob:x:1001:1001::/srv/bob:/bin/sh\n`,
  )
  watched.tell('/etc/passwd')
  watched.tell('/srv/bob/.ssh', 'rename', { previousPath: folder.at('/srv/elsewhere') })
  expect((await watched.changes(3)).slice(1).map((change) => change['event.action'])).toEqual([
    'user-created',
    'ssh-key-added',
  ])
  await watched.stop()
})

describe('a line of authorized_keys', () => {
  test.each([
    ['no options', `${key(1)} a b`, '', 'a b'],
    [
      'a quoted blank',
      `command="echo hi \\"there\\"",no-pty ${key(1)}`,
      'command="echo hi \\"there\\"",no-pty',
      '',
    ],
    [
      'an option that looks like a key',
      `environment="A=ssh-rsa AAAA" ${key(1)} c`,
      'environment="A=ssh-rsa AAAA"',
      'c',
    ],
    ['tabs and a carriage return', `\tcert-authority\t${key(1)}\tc\r`, 'cert-authority', 'c'],
    ['a line separator in the comment', `${key(1)} a\u2028b`, '', 'a\u2028b'],
  ])('with %s', (_, line, options, comment) => {
    expect(parseAuthorizedKey(line)).toMatchObject({ options, comment, type: 'ssh-ed25519' })
  })

  test.each([
    '',
    '# comment',
    'ssh-ed25519',
    'ssh-ed25519 AAAA',
    'ssh-rsa AAAAC3NzaC1lZDI1NTE5 type that differs',
    `command="never ends ${key(1)}`,
    '\0\0\0',
    'a'.repeat(1_000_000),
    `${'"\\"'.repeat(20_000)} x`,
  ])('that holds no key is passed by (%#)', (line) => {
    expect(parseAuthorizedKey(line)).toBeNull()
  })

  test.skipIf(!existsSync('/usr/bin/ssh-keygen'))('has the fingerprint that ssh-keygen writes', () => {
    for (const type of ['ed25519', 'ecdsa', 'rsa']) {
      const path = folder.at(`/key-${type}`)
      execFileSync('/usr/bin/ssh-keygen', ['-q', '-t', type, '-N', '', '-C', 'who', '-f', path], {
        timeout: 30_000,
      })
      const told = execFileSync('/usr/bin/ssh-keygen', ['-l', '-f', path], { encoding: 'utf8' }).split(' ')[1]
      expect(parseAuthorizedKey(readFileSync(`${path}.pub`, 'utf8'))?.fingerprint).toBe(told)
    }
  })
})

test('patterns of sshd_config are expanded, those that cannot be are left out', () => {
  const patterns = keyFilePatterns([
    'AuthorizedKeysFile=/etc/k/%u %h/%%x none',
    '#AuthorizedKeysFile no',
    'Match all\n authorizedkeysfile %t/x',
  ])
  const user = { name: 'al', id: '7', home: '/h/al/' }
  expect(patterns.map((pattern) => keyFileOf(pattern, user))).toEqual([
    '/h/al/.ssh/authorized_keys',
    '/h/al/.ssh/authorized_keys2',
    '/etc/k/al',
    '/h/al//%x',
    null,
  ])
})
