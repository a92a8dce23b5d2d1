import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { probeEbpf } from './probe.ts'

const folder = mkdtempSync(join(tmpdir(), 'cordon-probe-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const typesPath = join(folder, 'vmlinux')
writeFileSync(typesPath, '')
const status = (effective: string) => {
  const path = join(folder, effective)
  writeFileSync(path, `Name:\tnode\nCapEff:\t${effective}\n`)
  return path
}
const fit = { typesPath, statusPath: status('000001ffffffffff'), kernelRelease: '6.1.0-18-amd64' }
const willing = { bpfProbe: () => undefined }

test('a host with all that is needed is fit', () => {
  expect(probeEbpf(willing, fit)).toEqual({ ok: true })
  expect(probeEbpf(willing, { ...fit, kernelRelease: '5.17.0' })).toEqual({ ok: true })
  expect(probeEbpf(willing, { ...fit, statusPath: status('000000c000000000') })).toEqual({ ok: true })
})

test.each([
  [{ kernelRelease: '5.16.20' }, 'older than 5.17'],
  [{ kernelRelease: '4.18.0-553.el8' }, 'older than 5.17'],
  [{ typesPath: join(folder, 'none') }, 'CONFIG_DEBUG_INFO_BTF'],
  [{ statusPath: status('0000000000000000') }, 'CAP_BPF and CAP_PERFMON'],
  [{ statusPath: status('0000008000000000') }, 'lacks CAP_PERFMON'],
])('%o is refused with the reason', (sources, reason) => {
  const probe = probeEbpf(willing, { ...fit, ...sources })
  expect(probe).toMatchObject({ ok: false, reason: expect.stringContaining(reason) })
})

test('what the kernel says is part of the reason', () => {
  const unwilling = {
    bpfProbe: () => {
      throw new Error('bpf(BPF_MAP_CREATE): Operation not permitted (EPERM)')
    },
  }
  expect(probeEbpf(unwilling, fit)).toMatchObject({ ok: false, reason: expect.stringContaining('EPERM') })
})
