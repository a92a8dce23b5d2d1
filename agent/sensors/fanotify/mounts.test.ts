import { expect, test } from 'vitest'
import { selectMountPoints } from './mounts.ts'

test('each file system is watched once, where the whole of it is mounted, and the kernel its own are not', () => {
  const mountinfo = [
    '21 1 254:0 /sub /srv/part rw,relatime - ext4 /dev/vda rw',
    '22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw',
    '23 22 0:20 / /proc rw shared:2 master:1 - proc proc rw',
    '24 22 0:21 / /sys/fs/cgroup rw - cgroup2 cgroup rw',
    '25 22 0:22 / /run rw - tmpfs tmpfs rw',
    '26 22 0:22 / /bound rw - tmpfs tmpfs rw',
    '27 22 0:23 / /with\\040space\\134 rw - xfs /dev/vdb rw',
    '28 22 0:24 / /merged rw - overlay overlay rw',
  ].join('\n')
  expect(selectMountPoints(mountinfo)).toEqual(['/', '/run', '/with space\\', '/merged'])
})

test.each(['', 'nonsense', '1 2 3', '1 2 0:1 / /a rw', '1 2 0:1 / /a rw -', '\0\n - - - - - - -'])(
  'text that is no mount table gives nothing: %j',
  (text) => {
    expect(selectMountPoints(text)).toEqual([])
  },
)
