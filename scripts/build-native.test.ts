import { expect, test } from 'vitest'
import { buildNative, hashInSkeleton, hashKernelPrograms } from './build-native.ts'

test('the committed skeleton was generated from the committed kernel programs', () => {
  expect(hashInSkeleton()).toBe(hashKernelPrograms())
})

test('a second build finds the addon up to date', () => {
  expect(buildNative()).not.toMatchObject({ kind: 'failed' })
  expect(buildNative()).toMatchObject({ kind: 'upToDate' })
})
