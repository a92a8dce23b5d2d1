import { expect, test } from 'vitest'
import { buildNative, hashesInSkeletons, hashKernelPrograms } from './build-native.ts'

test('the committed skeletons were generated from the committed kernel programs', () => {
  const hash = hashKernelPrograms()
  expect(hashesInSkeletons()).toEqual([hash, hash])
})

test('a second build finds the addon up to date', () => {
  expect(buildNative()).not.toMatchObject({ kind: 'failed' })
  expect(buildNative()).toMatchObject({ kind: 'upToDate' })
})
