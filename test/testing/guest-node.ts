/** What a guest needs to run a TypeScript program of this tree: Node, the agent's addon, and the program as one file. */
import { mkdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { build } from 'esbuild'
import { NODE_BINARY } from '../../scripts/build.ts'
import { buildNative } from '../../scripts/build-native.ts'

export interface GuestProgram {
  /** For `bootGuest`. */
  readonly files: Readonly<Record<string, string>>
  /** Starts the program in the guest; its own words go behind. */
  readonly command: readonly string[]
}

export const GUEST_ADDON_PATH = '/usr/lib/cordon/cordon.node'

/** Throws with the reason when the addon or the bundle cannot be made. `folder` holds the bundle. */
export async function prepareGuestProgram(entryPath: string, folder: string): Promise<GuestProgram> {
  const native = buildNative()
  if (native.kind === 'failed') throw new Error(native.reason)
  const name = basename(entryPath).replace(/\.ts$/, '.mjs')
  mkdirSync(folder, { recursive: true })
  const outfile = join(folder, name)
  await build({
    entryPoints: [entryPath],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url)",
    },
  })
  const inGuest = `/usr/lib/cordon/${name}`
  return {
    files: { '/usr/bin/node': NODE_BINARY, [GUEST_ADDON_PATH]: native.path, [inGuest]: outfile },
    command: ['/usr/bin/node', inGuest],
  }
}
