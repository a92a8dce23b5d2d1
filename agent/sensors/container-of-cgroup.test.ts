import { expect, test } from 'vitest'
import { createContainerFinder } from './container-of-cgroup.ts'

const ID = 'ab12'.repeat(16)

test.each([
  [`/system.slice/docker-${ID}.scope`, 'docker', ID],
  [`/docker/${ID}`, 'docker', ID],
  [`/docker/${ID}/init.scope`, 'docker', ID],
  [
    `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-${ID}.scope`,
    'containerd',
    ID,
  ],
  [`/kubepods/besteffort/pod0a1b/${ID}`, 'containerd', ID],
  [`/kubepods.slice/kubepods-pod1.slice/crio-${ID}.scope`, 'crio', ID],
  [`/machine.slice/libpod-${ID}.scope/container`, 'podman', ID],
  ['/lxc.payload.web1/system.slice/ssh.service', 'lxc', 'web1'],
  ['/lxc/web2/system.slice', 'lxc', 'web2'],
  ['/machine.slice/systemd-nspawn@debian.service/payload', 'nspawn', 'debian'],
  ['/machine.slice/machine-my\\x2dhost.scope/payload/init.scope', 'nspawn', 'my-host'],
  [`/some/where/${ID}`, 'other', ID],
])('%s is a container of %s', (cgroup, runtime, id) => {
  expect(createContainerFinder()(cgroup)).toEqual({ runtime, id })
})

test.each([
  '',
  '/',
  '/user.slice/user-1000.slice/session-2.scope',
  '/system.slice/ssh.service',
  `/${'a'.repeat(63)}`,
])('what runs in %j runs in no container', (cgroup) => {
  expect(createContainerFinder()(cgroup)).toBeNull()
})

test('it answers the same again, however many cgroups there were between', () => {
  const find = createContainerFinder()
  for (let index = 0; index < 10_000; index += 1) find(`/system.slice/unit-${index}.service`)
  expect(find(`/docker/${ID}`)).toEqual({ runtime: 'docker', id: ID })
  expect(find(`/docker/${ID}`)).toEqual({ runtime: 'docker', id: ID })
})
