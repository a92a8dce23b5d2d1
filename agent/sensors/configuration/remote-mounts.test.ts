import { expect, test } from 'vitest'
import { remoteMountPoints } from './remote-mounts.ts'
import { createRootFolder, startWatch } from './testing/watched-root.ts'

test('file systems of servers and automounters are found, with the blanks in their paths', () => {
  const mountinfo = [
    '22 1 8:1 / / rw - ext4 /dev/sda1 rw',
    '30 22 0:40 / /home rw shared:1 - nfs4 server:/home rw',
    '31 22 0:41 / /net\\040share rw - cifs //server/x rw',
    '32 22 0:42 / /auto rw master:2 - autofs systemd-1 rw',
    '33 22 0:43 / /tmp rw - tmpfs tmpfs rw',
    'nonsense',
    '',
  ].join('\n')
  expect(remoteMountPoints(mountinfo)).toEqual(['/home', '/net share', '/auto'])
  expect(remoteMountPoints('1 1 1 / /x rw - nfs a b\n'.repeat(5_000))).toHaveLength(1_024)
})

test('nothing is read in a home that lies on one', async () => {
  const folder = createRootFolder()
  folder.put('/etc/passwd', 'far:x:1:1::/net/far:/bin/sh\nnear:x:2:2::/home/near:/bin/sh\n')
  folder.put('/home/near/.bashrc', 'old\n')
  const asked: string[] = []
  const { readSafely, listSafely } = await import('../safe-read.ts')
  const watched = await startWatch(folder.root, {
    excludedFolders: ['/net'],
    read(root, inside, bytesMax) {
      asked.push(inside)
      return readSafely(root, inside, bytesMax)
    },
    list(root, inside, entriesMax) {
      asked.push(inside)
      return listSafely(root, inside, entriesMax)
    },
  })
  watched.tell('/net/far/.bashrc')
  await watched.stop()
  expect(asked).toContain('/home/near/.bashrc')
  expect(asked.filter((path) => path.startsWith('/net'))).toEqual([])
  folder.remove()
})
