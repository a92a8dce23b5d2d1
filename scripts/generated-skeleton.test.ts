/** Needs clang and bpftool, which the long run installs; every run compares the hashes (build-native.test.ts). */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { expect, test } from 'vitest'
import { checkGenerated } from './build-native.ts'

const canGenerate =
  existsSync('/sys/kernel/btf/vmlinux') &&
  ['clang', 'bpftool'].every((command) => spawnSync(command, ['--version']).status === 0)

test.skipIf(!canGenerate)('the committed skeleton is what its sources make', () => {
  expect(checkGenerated()).toMatchObject({ kind: 'same' })
})
