/** The two packages and what is in them. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { AGENT_CONFIG, AGENT_PROGRAM, AGENT_UNITS } from '../../agent/cli/install-units.ts'
import { gzip, type PackageFile, type PackageSpec, readScripts } from './package-spec.ts'

const here = import.meta.dirname
const root = join(here, '..', '..')
const UNITS = '/usr/lib/systemd/system'
const RPM_BASE = ['glibc >= 2.34', 'libstdc++', 'libgcc', 'systemd']
const DEB_BASE = 'libc6 (>= 2.34), libstdc++6 (>= 5), libgcc-s1, init-system-helpers (>= 1.54)'

/** `programs`: the folder that `npm run package` fills. */
export function agentPackage(programs: string, version: string): PackageSpec {
  const name = 'cordon-agent'
  return {
    name,
    version,
    summary: 'Cordon agent: watches this host, detects, acts on signed commands',
    description:
      'Watches processes, files and connections of this host, examines them with YARA rules and indicators, and kills, quarantines and isolates on commands that operators signed.',
    files: [
      program(join(programs, name), AGENT_PROGRAM),
      { path: AGENT_CONFIG, mode: 0o644, content: { text: '{}\n' }, isConfig: true },
      ...Object.entries(AGENT_UNITS).map(([unit, text]) => textFile(`${UNITS}/${unit}`, text)),
      manual(programs, name, 8),
      ...documents(name),
    ],
    deb: {
      depends: DEB_BASE,
      recommends: 'nftables, iproute2',
      scripts: readScripts(join(here, 'agent', 'deb'), ['preinst', 'postinst', 'prerm', 'postrm']),
    },
    rpm: {
      requires: RPM_BASE,
      recommends: 'nftables',
      scripts: readScripts(join(here, 'agent', 'rpm'), ['pre', 'post', 'preun', 'postun', 'posttrans']),
    },
  }
}

/** With the operators' program. */
export function controllerPackage(programs: string, version: string): PackageSpec {
  const name = 'cordon-controller'
  const own = (file: string) => readFileSync(join(here, 'controller', file), 'utf8')
  return {
    name,
    version,
    summary: 'Cordon controller: incidents, approvals and signed commands for a fleet',
    description:
      'Takes telemetry from agents over mutual TLS, forms incidents of it, has actions approved and sends them. Brings the program of operators, cordon.',
    files: [
      program(join(programs, name), '/usr/bin/cordon-controller'),
      program(join(programs, 'cordon'), '/usr/bin/cordon'),
      {
        path: '/etc/cordon-controller/controller.json',
        mode: 0o644,
        content: { text: '{}\n' },
        isConfig: true,
      },
      textFile(`${UNITS}/cordon-controller.service`, own('cordon-controller.service')),
      textFile('/usr/lib/sysusers.d/cordon-controller.conf', own('cordon-controller.conf')),
      manual(programs, name, 8),
      manual(programs, 'cordon', 1),
      textFile(
        '/usr/share/bash-completion/completions/cordon',
        say(programs, 'cordon', 'completion', 'bash'),
      ),
      textFile('/usr/share/zsh/site-functions/_cordon', say(programs, 'cordon', 'completion', 'zsh')),
      ...documents(name),
    ],
    deb: {
      depends: `${DEB_BASE}, systemd, passwd`,
      scripts: readScripts(join(here, 'controller', 'deb'), ['preinst', 'postinst', 'prerm', 'postrm']),
    },
    rpm: {
      requires: [...RPM_BASE, 'shadow-utils'],
      scripts: readScripts(join(here, 'controller', 'rpm'), ['post', 'preun', 'postun', 'posttrans']),
    },
  }
}

function program(from: string, path: string): PackageFile {
  return { path, mode: 0o755, content: { from } }
}

function textFile(path: string, text: string): PackageFile {
  return { path, mode: 0o644, content: { text } }
}

function documents(name: string): PackageFile[] {
  const license = readFileSync(join(root, 'LICENSE'), 'utf8')
  const copyright = `Copyright: the Cordon authors\nLicense: Apache-2.0\n\nThe program carries Node.js (MIT and others, https://nodejs.org), SQLite (public domain), YARA-X (BSD-3-Clause)\nand the packages of npm that its source names.\n\n${license}`
  const install = readFileSync(join(root, 'docs', 'install.md'), 'utf8')
  return [
    textFile(`/usr/share/doc/${name}/copyright`, copyright),
    textFile(`/usr/share/doc/${name}/install.md`, install),
  ]
}

/** A manual page from the program's own help, so that it says what this version does. */
function manual(programs: string, name: string, section: number): PackageFile {
  const help = say(programs, name, '--help')
  // In roff a line that begins with a dot or a quote is a request, and a backslash an escape.
  const text = help
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^(?=[.'])/gm, '\\&')
  const page = [
    `.TH ${name.toUpperCase()} ${section}`,
    `.SH NAME\n${name} \\- part of Cordon, automated incident response`,
    `.SH DESCRIPTION\n.nf\n${text.trimEnd()}\n.fi`,
    `.SH SEE ALSO\n/usr/share/doc/${name === 'cordon' ? 'cordon\\-controller' : name}/install.md, ${name} COMMAND \\-\\-help`,
    '',
  ].join('\n')
  return {
    path: `/usr/share/man/man${section}/${name}.${section}.gz`,
    mode: 0o644,
    content: { bytes: gzip(page) },
  }
}

/** What a program prints, in a width and language that no terminal decides. */
function say(programs: string, name: string, ...words: readonly string[]): string {
  const env = { PATH: '/usr/bin:/bin', LANG: 'C.UTF-8', COLUMNS: '80', NO_COLOR: '1', HOME: '/nonexistent' }
  return execFileSync(join(programs, name), words, { env, encoding: 'utf8', timeout: 60_000 })
}
