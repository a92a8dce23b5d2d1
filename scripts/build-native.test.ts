import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { expect, test } from 'vitest'
import { buildNative, checkGenerated, hashInSkeleton, hashKernelPrograms } from './build-native.ts'

test('the committed skeleton was generated from the committed kernel programs', () => {
  expect(hashInSkeleton()).toBe(hashKernelPrograms())
})

test('a second build finds the addon up to date', () => {
  expect(buildNative()).not.toMatchObject({ kind: 'failed' })
  expect(buildNative()).toMatchObject({ kind: 'upToDate' })
})

const canGenerate =
  existsSync('/sys/kernel/btf/vmlinux') &&
  ['clang', 'bpftool'].every((command) => spawnSync(command, ['--version']).status === 0)

test.skipIf(!canGenerate)('the committed skeleton is what its sources make', () => {
  expect(checkGenerated()).toMatchObject({ kind: 'same' })
})
