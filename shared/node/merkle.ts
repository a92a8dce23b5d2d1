/**
 * Merkle trees over the targets of an intent, as in RFC 6962, section 2.1: leaves and inner nodes are hashed
 * under different prefixes, so a node cannot pass for a leaf, and a tree is made of exactly its leaves: the
 * last one of an odd row is carried up, never doubled.
 */
import { createHash } from 'node:crypto'

const leafPrefix = Buffer.from([0x00])
const nodePrefix = Buffer.from([0x01])
/** Positions are shifted as 32-bit integers. */
const countMax = 2 ** 30

export interface MerkleTree {
  /** 32 bytes in hex. */
  readonly root: string
  readonly count: number
  /** Hashes in hex that lead from the leaf to the root, nearest first. Throws for an index outside the tree. */
  proof(index: number): string[]
}

/** Builds the tree over the exact bytes of each leaf, in order. Throws without leaves. */
export function createMerkleTree(leaves: readonly Uint8Array[]): MerkleTree {
  if (leaves.length === 0) throw new Error('a Merkle tree needs at least one leaf')
  const rows: Buffer[][] = [leaves.map(hashLeaf)]
  for (let row = rows[0] ?? []; row.length > 1; ) {
    row = nextRow(row)
    rows.push(row)
  }
  return {
    root: rows.at(-1)?.[0]?.toString('hex') ?? '',
    count: leaves.length,
    proof(index) {
      if (!Number.isInteger(index) || index < 0 || index >= leaves.length) throw new Error(`no leaf ${index}`)
      return rows.flatMap((row, height) => row[(index >> height) ^ 1]?.toString('hex') ?? [])
    },
  }
}

export interface Inclusion {
  /** 32 bytes in hex. */
  readonly root: string
  /** Exact bytes of the leaf. */
  readonly leaf: Uint8Array
  readonly index: number
  readonly count: number
  /** Hashes in hex, nearest first. */
  readonly proof: readonly string[]
}

/** Whether the leaf stands at `index` of a tree of `count` leaves with this root. Never throws. */
export function verifyInclusion({ root, leaf, index, count, proof }: Inclusion): boolean {
  if (!Number.isInteger(index) || !Number.isInteger(count) || index < 0 || index >= count) return false
  if (count > countMax) return false
  let hash = hashLeaf(leaf)
  let position = index
  let last = count - 1
  let used = 0
  for (; last > 0; position >>= 1, last >>= 1) {
    // The last node of an odd row has no sibling and goes up as it is.
    if (position === last && position % 2 === 0) continue
    const sibling = proof[used]
    if (sibling === undefined || !/^[0-9a-f]{64}$/.test(sibling)) return false
    used += 1
    const other = Buffer.from(sibling, 'hex')
    hash = position % 2 === 0 ? hashNode(hash, other) : hashNode(other, hash)
  }
  return used === proof.length && hash.toString('hex') === root
}

function nextRow(row: readonly Buffer[]): Buffer[] {
  const next: Buffer[] = []
  for (let index = 0; index < row.length; index += 2) {
    const left = row[index]
    const right = row[index + 1]
    if (left) next.push(right ? hashNode(left, right) : left)
  }
  return next
}

function hashLeaf(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(leafPrefix).update(bytes).digest()
}

function hashNode(left: Buffer, right: Buffer): Buffer {
  return createHash('sha256').update(nodePrefix).update(left).update(right).digest()
}
