/** A package for Fedora and its relatives by rpmbuild(8), which Debian has in its package `rpm`. */
import { execFileSync } from 'node:child_process'
import { copyFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type BuildPlace, type PackageSpec, stage } from './package-spec.ts'

const RELEASE = '1'

/** Makes `NAME-VERSION-1.x86_64.rpm` in the output folder and returns its path. Throws what rpmbuild says. */
export function buildRpm(spec: PackageSpec, { work, output, level, epochS }: BuildPlace): string {
  const tree = join(work, 'tree')
  stage(spec, tree, epochS)
  const specPath = join(work, `${spec.name}.spec`)
  writeFileSync(specPath, specFile(spec, tree))
  const defines = {
    _topdir: join(work, 'rpm'),
    _rpmdir: work,
    _build_name_fmt: '%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm',
    _buildhost: 'cordon',
    _binary_payload: `w${level}.zstdio`,
    use_source_date_epoch_as_buildtime: '1',
    clamp_mtime_to_source_date_epoch: '1',
    // The program carries its data behind itself: stripping or compressing it would break it.
    __os_install_post: '%{nil}',
    debug_package: '%{nil}',
    _build_id_links: 'none',
    // On Debian nothing of its own package database has to be asked.
    _dbpath: join(work, 'database'),
  }
  const words = Object.entries(defines).flatMap(([name, value]) => ['--define', `${name} ${value}`])
  execFileSync('rpmbuild', ['-bb', '--quiet', '--target', 'x86_64-linux', ...words, specPath], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, SOURCE_DATE_EPOCH: String(epochS) },
  })
  const name = `${spec.name}-${spec.version}-${RELEASE}.x86_64.rpm`
  copyFileSync(join(work, name), join(output, name))
  return join(output, name)
}

function specFile(spec: PackageSpec, tree: string): string {
  const tags = [
    `Name: ${spec.name}`,
    `Version: ${spec.version}`,
    `Release: ${RELEASE}`,
    `Summary: ${spec.summary}`,
    'License: Apache-2.0',
    'AutoReqProv: no',
    ...spec.rpm.requires.map((one) => `Requires: ${one}`),
    ...(spec.rpm.recommends === undefined ? [] : [`Recommends: ${spec.rpm.recommends}`]),
  ]
  const scripts = Object.entries(spec.rpm.scripts).map(([name, text]) => `%${name}\n${withoutMacros(text)}`)
  const files = spec.files.map((file) => {
    const attributes = `%attr(${file.mode.toString(8).padStart(4, '0')},root,root)`
    return `${attributes} ${file.isConfig ? '%config(noreplace) ' : ''}${file.path}`
  })
  return [
    ...tags,
    '',
    `%description\n${spec.description}`,
    '',
    `%install\ncp -a '${tree}/.' '%{buildroot}/'`,
    '',
    ...scripts,
    `%files\n%defattr(-,root,root,-)\n${folders(spec).join('\n')}`,
    ...files,
    '',
  ].join('\n')
}

/** Folders that are the package's own, and go with it. */
function folders(spec: PackageSpec): string[] {
  const own = spec.files.flatMap(({ path }) => {
    const folder = path.slice(0, path.lastIndexOf('/'))
    return folder.endsWith(`/${spec.name}`) ? [`%dir %attr(0755,root,root) ${folder}`] : []
  })
  return [...new Set(own)]
}

/** rpm expands macros in scripts, too. */
function withoutMacros(text: string): string {
  return text.replaceAll('%', '%%')
}
