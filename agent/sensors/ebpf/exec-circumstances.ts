/** What else is known of a program that starts: for whom, where, and with which of the telling variables. */
import { splitArguments } from '../../native/kernel-bytes.ts'
import type { ExecCircumstances, KernelText } from '../records.ts'
import { textUpToZero } from './record-reader.ts'

/** `enum namespace_slot` in their order; the names are those of /proc/PID/ns. */
const namespaceNames = ['mnt', 'pid', 'net', 'uts', 'ipc', 'cgroup', 'user', 'time'] as const
const nobodyLoggedOn = 0xffff_ffff
const minorBits = 20

/**
 * Variables that change what a program loads or runs, or tell where its user came from. The kernel side passes on
 * what begins with the same four letters.
 */
const toldVariable = new RegExp(
  `^(?:${[
    'LD_[A-Z_0-9]+',
    'BASH_ENV|BASH_FUNC_[^=]+|ENV|PROMPT_COMMAND',
    'PYTHON(?:PATH|STARTUP|HOME|INSPECT)|PERL5(?:OPT|LIB|DB)|RUBY(?:OPT|LIB)|NODE_(?:OPTIONS|PATH)',
    'JAVA_(?:TOOL_OPTIONS|OPTS)|GCONV_PATH|GLIBC_TUNABLES',
    'HIST(?:FILE|SIZE|CONTROL|FILESIZE)',
    'SSH_(?:CONNECTION|ORIGINAL_COMMAND)|SUDO_(?:USER|UID|COMMAND)',
  ].join('|')})=`,
)
const variablesMax = 16

interface ExecTexts {
  readonly environment: Buffer
  /** Names of the cgroup's folders from the leaf up, each ended by a zero byte. */
  readonly cgroup: Buffer
  readonly hostNamespaces: Readonly<Record<string, number>>
  readonly executable: KernelText
  readonly isUnlinked: boolean
}

/** `offset` is that of the exec record. */
export function readCircumstances(buffer: Buffer, offset: number, texts: ExecTexts): ExecCircumstances {
  const loginUserId = buffer.readUInt32LE(offset + 104)
  const terminal = buffer.readUInt32LE(offset + 108)
  return {
    effectiveUserId: buffer.readUInt32LE(offset + 96),
    effectiveGroupId: buffer.readUInt32LE(offset + 100),
    loginUserId: loginUserId === nobodyLoggedOn ? null : loginUserId,
    terminal:
      terminal === 0 ? null : { major: terminal >>> minorBits, minor: terminal & (2 ** minorBits - 1) },
    namespaces: otherNamespaces(buffer, offset, texts.hostNamespaces),
    cgroup: cgroupPath(texts.cgroup),
    environment: toldVariables(texts.environment),
    fileless: filelessOf(texts, textUpToZero(buffer.subarray(offset + 144, offset + 176))),
  }
}

function otherNamespaces(
  buffer: Buffer,
  offset: number,
  host: Readonly<Record<string, number>>,
): Record<string, number> {
  const others: Record<string, number> = {}
  for (let slot = 0; slot < namespaceNames.length; slot++) {
    const name = namespaceNames[slot] ?? ''
    const inode = buffer.readUInt32LE(offset + 112 + 4 * slot)
    if (inode !== 0 && host[name] !== undefined && host[name] !== inode) others[name] = inode
  }
  return others
}

function cgroupPath(names: Buffer): string {
  if (names.length === 0) return '/'
  const folders = names.toString('utf8').split('\0')
  folders.pop()
  return `/${folders.reverse().join('/')}`
}

function toldVariables(environment: Buffer): KernelText[] {
  if (environment.length === 0) return []
  return splitArguments(environment)
    .filter((variable) =>
      toldVariable.test(typeof variable === 'string' ? variable : Buffer.from(variable).toString('latin1')),
    )
    .slice(0, variablesMax)
}

/** A file without a name is one of memfd_create(2), or one that was deleted; `/dev/fd/N` is fexecve(3). */
function filelessOf(texts: ExecTexts, invokedAs: KernelText | null): ExecCircumstances['fileless'] {
  if (texts.isUnlinked) {
    return typeof texts.executable === 'string' && texts.executable.startsWith('/memfd:')
      ? 'memory-file'
      : 'deleted-file'
  }
  const isDescriptor =
    typeof invokedAs === 'string' && /^\/(?:dev|proc\/(?:self|\d+))\/fd\/\d/.test(invokedAs)
  return isDescriptor ? 'descriptor' : null
}
