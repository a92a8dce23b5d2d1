/**
 * Tells what a content is by its first bytes and its shape, never by its name, as a MIME type with the names that
 * file(1) uses. Sources: the formats' own specifications, elf(5), execve(2) for `#!`, PEP 3147 for Python, the PE
 * and Mach-O headers, RFC 1952, RFC 8878 and RFC 8259. It looks at a bounded part and takes nothing for granted.
 */
import { isUtf8 } from 'node:buffer'
import { elfMimeType } from './elf-type.ts'

/** What is looked at to tell text from other bytes. */
const TEXT_BYTES_MAX = 4_096
/** The kernel reads no more of the first line of a script (BINPRM_BUF_SIZE). */
const SHEBANG_BYTES_MAX = 256
const UNKNOWN = 'application/octet-stream'

interface Magic {
  /** Latin-1, so that each character is a byte. */
  readonly bytes: string
  readonly offset?: number
  readonly type: string | ((head: Buffer) => string)
}

/** The first that fits decides. */
const MAGICS: readonly Magic[] = [
  { bytes: '\x7fELF', type: (head) => elfMimeType(head) ?? UNKNOWN },
  { bytes: '#!', type: scriptType },
  { bytes: '\x1f\x8b\x08', type: 'application/gzip' },
  { bytes: '\xfd7zXZ\0', type: 'application/x-xz' },
  { bytes: '\x28\xb5\x2f\xfd', type: 'application/zstd' },
  { bytes: '1AY&SY', offset: 4, type: (head) => (startsWith(head, 'BZh') ? 'application/x-bzip2' : UNKNOWN) },
  { bytes: '\x04\x22\x4d\x18', type: 'application/x-lz4' },
  { bytes: 'PK\x03\x04', type: zipType },
  { bytes: 'PK\x05\x06', type: 'application/zip' },
  { bytes: '7z\xbc\xaf\x27\x1c', type: 'application/x-7z-compressed' },
  { bytes: 'Rar!\x1a\x07', type: 'application/x-rar' },
  { bytes: '%PDF-', type: 'application/pdf' },
  { bytes: '\x89PNG\r\n\x1a\n', type: 'image/png' },
  { bytes: '\xff\xd8\xff', type: 'image/jpeg' },
  { bytes: 'GIF87a', type: 'image/gif' },
  { bytes: 'GIF89a', type: 'image/gif' },
  { bytes: 'WEBP', offset: 8, type: (head) => (startsWith(head, 'RIFF') ? 'image/webp' : UNKNOWN) },
  { bytes: 'SQLite format 3\0', type: 'application/vnd.sqlite3' },
  { bytes: 'MZ', type: dosType },
  { bytes: '\xfe\xed\xfa\xce', type: 'application/x-mach-binary' },
  { bytes: '\xfe\xed\xfa\xcf', type: 'application/x-mach-binary' },
  { bytes: '\xce\xfa\xed\xfe', type: 'application/x-mach-binary' },
  { bytes: '\xcf\xfa\xed\xfe', type: 'application/x-mach-binary' },
  { bytes: '\xca\xfe\xba\xbe', type: javaOrMachType },
  { bytes: '\0asm', type: 'application/wasm' },
  { bytes: '!<arch>\ndebian', type: 'application/vnd.debian.binary-package' },
  { bytes: '!<arch>\n', type: 'application/x-archive' },
  { bytes: '\xed\xab\xee\xdb', type: 'application/x-rpm' },
  { bytes: 'ustar', offset: 257, type: 'application/x-tar' },
  { bytes: '\r\n', offset: 2, type: pythonType },
]

/** `head`: the bytes of the content from its start, all or as many as there are at hand. */
export function mimeTypeOf(head: Buffer): string {
  if (head.length === 0) return 'inode/x-empty'
  for (const { bytes, offset = 0, type } of MAGICS) {
    if (!startsWith(head, bytes, offset)) continue
    const found = typeof type === 'string' ? type : type(head)
    if (found !== UNKNOWN) return found
  }
  return textType(head)
}

function startsWith(head: Buffer, bytes: string, offset = 0): boolean {
  return head.toString('latin1', offset, offset + bytes.length) === bytes
}

const SCRIPT_TYPES: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    ['sh', 'ash', 'bash', 'dash', 'ksh', 'zsh'].map((name) => [name, 'text/x-shellscript']),
  ),
  python: 'text/x-script.python',
  perl: 'text/x-perl',
  ruby: 'text/x-ruby',
  php: 'text/x-php',
  node: 'text/javascript',
  lua: 'text/x-lua',
  awk: 'text/x-awk',
  gawk: 'text/x-awk',
  tclsh: 'text/x-tcl',
}

/** execve(2): `#!`, the interpreter and at most one argument. The program behind env(1) is what counts. */
function scriptType(head: Buffer): string {
  const line = head.toString('latin1', 2, SHEBANG_BYTES_MAX).split('\n', 1)[0] ?? ''
  const words = line.trim().split(/[ \t]+/)
  const programs = words.map((word) => word.slice(word.lastIndexOf('/') + 1))
  const isEnvironment = programs[0] === 'env'
  const program = isEnvironment ? programs.slice(1).find((word) => !/^-|=/.test(word)) : programs[0]
  const name = (program ?? '').replace(/[0-9.]+$/, '')
  return Object.hasOwn(SCRIPT_TYPES, name) ? (SCRIPT_TYPES[name] ?? UNKNOWN) : 'text/x-script'
}

/** A JAR is a ZIP file that starts with its manifest's folder. */
function zipType(head: Buffer): string {
  return startsWith(head, 'META-INF/', 30) ? 'application/java-archive' : 'application/zip'
}

function dosType(head: Buffer): string {
  if (head.length < 64) return UNKNOWN
  return startsWith(head, 'PE\0\0', head.readUInt32LE(60))
    ? 'application/vnd.microsoft.portable-executable'
    : 'application/x-dosexec'
}

/** Both start alike: then comes Java's version, 45 and more, or the number of programs in a Mach-O file. */
function javaOrMachType(head: Buffer): string {
  if (head.length < 8) return UNKNOWN
  return head.readUInt16BE(6) >= 45 ? 'application/x-java-applet' : 'application/x-mach-binary'
}

/** The version's number comes before the line end: 3000 and more for Python 3, 62xxx for Python 2. */
function pythonType(head: Buffer): string {
  const version = head.length < 16 ? 0 : head.readUInt16LE(0)
  const isKnown = (version >= 3_000 && version < 4_000) || (version >= 62_000 && version < 62_300)
  return isKnown ? 'application/x-bytecode.python' : UNKNOWN
}

// Every repetition is bounded. A value alone in brackets must end the content: logs start lines with such.
const JSON_END = '\\s{0,64}(?:,|\\]\\s*$)'
const JSON_STARTS = [
  /^\s{0,256}\{\s{0,256}(?:"[^"]{0,256}"\s{0,64}:|\}\s*$)/,
  /^\s{0,256}\[\s{0,256}(?:\{\s{0,256}["}]|\]\s*$)/,
  new RegExp(`^\\s{0,256}\\[\\s{0,256}"[^"]{0,256}"${JSON_END}`),
  new RegExp(`^\\s{0,256}\\[\\s{0,256}-?[0-9]{1,20}(?:\\.[0-9]{1,20})?${JSON_END}`),
]

function textType(head: Buffer): string {
  const start = head.subarray(0, TEXT_BYTES_MAX)
  if (startsWith(start, '\xff\xfe') || startsWith(start, '\xfe\xff')) return 'text/plain'
  if (!isText(start)) return UNKNOWN
  const text = start.toString('utf8').replace(/^\uFEFF/, '')
  const trimmed = text.trimStart().slice(0, 64).toLowerCase()
  if (trimmed.startsWith('<?php')) return 'text/x-php'
  if (trimmed.startsWith('<?xml')) return 'text/xml'
  if (/^<(?:!doctype html|html|head|body)\b/.test(trimmed)) return 'text/html'
  if (trimmed.startsWith('-----begin ')) return 'application/x-pem-file'
  return JSON_STARTS.some((start) => start.test(text)) ? 'application/json' : 'text/plain'
}

/** UTF-8 without control characters but those that stand in texts. The last character may be cut. */
function isText(start: Buffer): boolean {
  let end = start.length
  if (end === TEXT_BYTES_MAX) {
    while (end > start.length - 4 && ((start[end - 1] ?? 0) & 0xc0) === 0x80) end -= 1
    if ((start[end - 1] ?? 0) >= 0xc0) end -= 1
    else end = start.length
  }
  const whole = start.subarray(0, end)
  if (!isUtf8(whole)) return false
  for (const byte of whole) {
    // Backspace to carriage return, and escape, which terminals' recordings hold.
    if (byte === 127 || (byte < 32 && (byte < 8 || byte > 13) && byte !== 27)) return false
  }
  return true
}
