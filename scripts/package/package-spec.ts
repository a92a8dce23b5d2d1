/** What a package is, whichever tool makes the file of it. */
import { chmodSync, copyFileSync, mkdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'

export interface PackageFile {
  /** Absolute, as it lies on the host. */
  readonly path: string
  readonly mode: number
  readonly content: { readonly from: string } | { readonly text: string } | { readonly bytes: Uint8Array }
  /** An administrator's changes survive upgrades. */
  readonly isConfig?: boolean
}

/** Scripts of a tool by their name there, such as `postinst`. */
export type Scripts = Readonly<Record<string, string>>

export interface PackageSpec {
  readonly name: string
  readonly version: string
  readonly summary: string
  /** One paragraph. */
  readonly description: string
  readonly files: readonly PackageFile[]
  readonly deb: { readonly depends: string; readonly recommends?: string; readonly scripts: Scripts }
  readonly rpm: {
    readonly requires: readonly string[]
    readonly recommends?: string
    readonly scripts: Scripts
  }
}

export interface BuildPlace {
  /** An empty folder to work in. */
  readonly work: string
  readonly output: string
  /** Of zstd, 1 to 19. */
  readonly level: number
  /** Seconds since 1970, given to everything that carries a time: the same inputs make the same bytes. */
  readonly epochS: number
}

/** Lays the files out below `folder`. Every folder and file has the one time. */
export function stage(spec: PackageSpec, folder: string, epochS: number): void {
  for (const file of spec.files) {
    const path = join(folder, file.path)
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
    if ('from' in file.content) copyFileSync(file.content.from, path)
    else writeFileSync(path, 'text' in file.content ? file.content.text : file.content.bytes)
    chmodSync(path, file.mode)
    utimesSync(path, epochS, epochS)
  }
}

/** Compressed without a time or a name in it. */
export function gzip(text: string): Uint8Array {
  return gzipSync(text, { level: 9 })
}

/** Reads a tool's scripts; `#include NAME` is replaced by the file of that name beside their folder. */
export function readScripts(folder: string, names: readonly string[]): Scripts {
  return Object.fromEntries(
    names.map((name) => {
      const text = readFileSync(join(folder, name), 'utf8').replace(
        /^( *)#include (\S+)\n/gm,
        (_line, indent: string, included: string) =>
          readFileSync(join(folder, '..', included), 'utf8').replace(/^(?=.)/gm, indent),
      )
      return [name, text]
    }),
  )
}
