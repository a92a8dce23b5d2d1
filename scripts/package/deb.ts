/** A Debian package by dpkg-deb(1), which is on every Debian and in `dpkg` everywhere else. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type BuildPlace, type PackageSpec, stage } from './package-spec.ts'

const MAINTAINER = 'The Cordon authors <cordon@localhost>'

/** Makes `NAME_VERSION_amd64.deb` in the output folder and returns its path. Throws what dpkg-deb says. */
export function buildDeb(spec: PackageSpec, { work, output, level, epochS }: BuildPlace): string {
  const tree = join(work, 'tree')
  stage(spec, tree, epochS)
  const control = join(tree, 'DEBIAN')
  mkdirSync(control, { mode: 0o755 })
  writeFileSync(join(control, 'control'), controlFile(spec, tree))
  const config = spec.files.filter((file) => file.isConfig).map((file) => `${file.path}\n`)
  if (config.length > 0) writeFileSync(join(control, 'conffiles'), config.join(''))
  writeFileSync(join(control, 'md5sums'), sums(spec, tree))
  for (const [name, text] of Object.entries(spec.deb.scripts)) {
    writeFileSync(join(control, name), text)
    chmodSync(join(control, name), 0o755)
  }
  const path = join(output, `${spec.name}_${spec.version}_amd64.deb`)
  // zstd: every system with the C library that is needed reads it, and it is made in a tenth of the time of xz.
  execFileSync('dpkg-deb', ['--root-owner-group', '-Zzstd', `-z${level}`, '--build', tree, path], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, SOURCE_DATE_EPOCH: String(epochS) },
  })
  return path
}

function controlFile(spec: PackageSpec, tree: string): string {
  const bytes = spec.files.reduce((sum, file) => sum + statSync(join(tree, file.path)).size, 0)
  const lines = [
    `Package: ${spec.name}`,
    `Version: ${spec.version}`,
    'Architecture: amd64',
    `Maintainer: ${MAINTAINER}`,
    `Installed-Size: ${Math.ceil(bytes / 1024)}`,
    `Depends: ${spec.deb.depends}`,
    ...(spec.deb.recommends === undefined ? [] : [`Recommends: ${spec.deb.recommends}`]),
    'Section: admin',
    'Priority: optional',
    `Description: ${spec.summary}`,
    ...wrap(spec.description, 76).map((line) => ` ${line}`),
  ]
  return `${lines.join('\n')}\n`
}

/** What `dpkg --verify` compares; configuration is the administrator's. */
function sums(spec: PackageSpec, tree: string): string {
  const files = spec.files.filter((file) => !file.isConfig).map((file) => file.path.slice(1))
  return files
    .sort()
    .map(
      (path) =>
        `${createHash('md5')
          .update(readFileSync(join(tree, path)))
          .digest('hex')}  ${path}\n`,
    )
    .join('')
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = []
  for (const word of text.split(/\s+/)) {
    const last = lines.at(-1)
    if (last !== undefined && last.length + word.length < width) lines[lines.length - 1] = `${last} ${word}`
    else lines.push(word)
  }
  return lines
}
