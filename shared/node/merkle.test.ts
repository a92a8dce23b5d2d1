import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createMerkleTree, verifyInclusion } from './merkle.ts'

const bytesOf = (text: string) => Buffer.from(text)
const hash = (...parts: Uint8Array[]) => {
  const digest = createHash('sha256')
  for (const part of parts) digest.update(part)
  return digest.digest()
}
const trees = fc
  .array(fc.uint8Array({ maxLength: 24 }), { minLength: 1, maxLength: 40 })
  .chain((leaves) => fc.tuple(fc.constant(leaves), fc.nat({ max: leaves.length - 1 })))

/** The recursive definition of RFC 6962, section 2.1, told again in another way. */
function rootByDefinition(leaves: readonly Uint8Array[]): Buffer {
  const [only] = leaves
  if (leaves.length === 1 && only) return hash(Buffer.from([0]), only)
  let split = 1
  while (split * 2 < leaves.length) split *= 2
  return hash(
    Buffer.from([1]),
    rootByDefinition(leaves.slice(0, split)),
    rootByDefinition(leaves.slice(split)),
  )
}

test('the root is the one that RFC 6962 defines, and every leaf proves itself', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 24 }), { minLength: 1, maxLength: 40 }), (leaves) => {
      const tree = createMerkleTree(leaves)
      expect(tree.root).toBe(rootByDefinition(leaves).toString('hex'))
      leaves.forEach((leaf, index) => {
        const inclusion = { root: tree.root, leaf, index, count: leaves.length, proof: tree.proof(index) }
        expect(verifyInclusion(inclusion)).toBe(true)
      })
    }),
    { numRuns: 300 },
  )
})

test('a changed leaf, proof or root, a longer or shorter proof: none verifies', () => {
  fc.assert(
    fc.property(trees, fc.nat(), fc.nat({ max: 255 }), ([leaves, index], at, flip) => {
      const tree = createMerkleTree(leaves)
      const leaf = leaves[index] ?? new Uint8Array()
      const proof = tree.proof(index)
      const good = { root: tree.root, leaf, index, count: leaves.length, proof }
      expect(verifyInclusion({ ...good, leaf: Buffer.concat([leaf, bytesOf('x')]) })).toBe(false)
      expect(verifyInclusion({ ...good, proof: [...proof, tree.root] })).toBe(false)
      expect(verifyInclusion({ ...good, root: flipHex(tree.root, at, flip) })).toBe(false)
      if (proof.length === 0) return
      expect(verifyInclusion({ ...good, proof: proof.slice(1) })).toBe(false)
      expect(verifyInclusion({ ...good, proof: proof.slice(0, -1) })).toBe(false)
      const position = at % proof.length
      const changed = proof.map((entry, place) => (place === position ? flipHex(entry, at, flip) : entry))
      expect(verifyInclusion({ ...good, proof: changed })).toBe(false)
    }),
    { numRuns: 500 },
  )
})

test('a leaf does not verify at another place when all leaves differ', () => {
  const leaves = Array.from({ length: 13 }, (_, index) => bytesOf(`leaf ${index}`))
  const tree = createMerkleTree(leaves)
  leaves.forEach((leaf, index) => {
    leaves.forEach((_, other) => {
      const claim = { root: tree.root, leaf, index: other, count: 13, proof: tree.proof(index) }
      expect(verifyInclusion(claim)).toBe(other === index)
    })
  })
})

test('an inner node does not pass for a leaf', () => {
  const tree = createMerkleTree([bytesOf('a'), bytesOf('b')])
  const inner = Buffer.concat([hash(Buffer.from([0]), bytesOf('a')), hash(Buffer.from([0]), bytesOf('b'))])
  expect(verifyInclusion({ root: tree.root, leaf: inner, index: 0, count: 1, proof: [] })).toBe(false)
})

test('the last leaf doubled makes another tree', () => {
  const [a, b, c] = [bytesOf('a'), bytesOf('b'), bytesOf('c')]
  expect(createMerkleTree([a, b, c, c]).root).not.toBe(createMerkleTree([a, b, c]).root)
})

test.each([
  [-1, 3],
  [3, 3],
  [0, 0],
  [0.5, 3],
  [Number.NaN, 3],
  [0, Number.POSITIVE_INFINITY],
  [2 ** 32, 2 ** 32 + 3],
])('index %d of %d is refused', (index, count) => {
  const tree = createMerkleTree([bytesOf('a'), bytesOf('b'), bytesOf('c')])
  expect(verifyInclusion({ root: tree.root, leaf: bytesOf('a'), index, count, proof: tree.proof(0) })).toBe(
    false,
  )
})

test('the largest bulk action has proofs of fourteen hashes', () => {
  const leaves = Array.from({ length: 16_384 }, (_, index) => bytesOf(String(index)))
  const tree = createMerkleTree(leaves)
  const inclusion = {
    root: tree.root,
    leaf: bytesOf('16383'),
    index: 16_383,
    count: 16_384,
    proof: tree.proof(16_383),
  }
  expect(inclusion.proof.length).toBe(14)
  expect(verifyInclusion(inclusion)).toBe(true)
})

function flipHex(hex: string, at: number, flip: number): string {
  const bytes = Buffer.from(hex, 'hex')
  const index = at % bytes.length
  bytes.writeUInt8(bytes.readUInt8(index) ^ (flip === 0 ? 1 : flip), index)
  return bytes.toString('hex')
}
