/** Rows that a program makes by direct system calls, without any system tool. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { compileMakeActivity, compileTinyExit } from '../../../agent/native/testing/compile.ts'
import { runActivity, startDnsServer } from '../../../agent/native/testing/run-activity.ts'
import type { Fields, Made } from './rows.ts'

const DNS_ADDRESS = '127.0.0.54'
const EXIT_CODE = 5

interface Work {
  readonly folder: string
  readonly count: number
  readonly say: (line: string) => void
}

/** Makes everything once, and says what must have been seen of it. */
export async function makeDirectCalls({ folder, count, say }: Work): Promise<Made[]> {
  const files = join(folder, 'files')
  mkdirSync(files, { recursive: true })
  const program = compileMakeActivity(folder)
  const tiny = compileTinyExit(folder, 'tiny-telemetry')
  const made: Made[] = []

  async function make(behaviour: string, ...options: readonly string[]) {
    say(`${behaviour} ...`)
    const { report } = await runActivity([program, behaviour, String(count), ...options])
    if (report.made !== count) throw new Error(`${behaviour}: ${report.made} of ${count} were made`)
    const pids = new Set<unknown>([report.pid, ...(report.children ?? [])])
    return { report, isIts: (event: Fields) => pids.has(event['process.pid']) }
  }
  const add = (row: string, action: Made['action'], isOne: Made['isOne']) =>
    made.push({ row, made: count, action, isOne })

  const run = await make('exec', '--program', tiny, '--folder', files, '--code', String(EXIT_CODE))
  const isOfRun = (event: Fields) => run.report.children?.includes(event['process.pid'] as number) ?? false
  add(
    'Process creation',
    'exec',
    (event) => isOfRun(event) && /--sequence=\d+/.test(String(event['process.command_line'])),
  )
  add('Process termination', 'exit', (event) => isOfRun(event) && event['process.exit_code'] !== undefined)

  const created = await make('file-create', '--folder', files)
  add('File creation', 'file-created', (event) => created.isIts(event) && isBelow(event, files))
  const written = await make('file-write', '--folder', files)
  add('File modification', 'file-modified', (event) => written.isIts(event) && isBelow(event, files))
  const deleted = await make('file-delete', '--folder', files)
  add('File deletion', 'file-deleted', (event) => deleted.isIts(event) && isBelow(event, files))

  const connected = await make('tcp-connect')
  add('Network connection', 'connection', connected.isIts)
  const listening = await make('listen')
  add('Socket listen', 'socket-listen', listening.isIts)
  const server = await startDnsServer([
    ...[program, 'dns-serve', String(count), '--address', DNS_ADDRESS, '--port', '53'],
  ])
  const asked = await make('dns-query', '--address', DNS_ADDRESS, '--port', '53', '--name', 'telemetry')
  await server.served
  add(
    'DNS query',
    'dns-query',
    (event) => asked.isIts(event) && String(event['dns.question.name']).startsWith('telemetry-'),
  )

  const module = await make('finit-module', '--folder', files)
  add('Driver load', 'module-loaded', module.isIts)
  const library = await make('map-library', '--program', tiny, '--folder', files)
  add('Image load', 'library-loaded', (event) => library.isIts(event) && isBelow(event, files))
  const programs = await make('bpf-program')
  add('eBPF event', 'bpf-used', programs.isIts)
  const device = join(folder, 'device')
  execFileSync('mknod', [device, 'b', '7', '0'])
  const opened = await make('open-device', '--path', device)
  add('Raw device read', 'device-read', opened.isIts)
  const attached = await make('ptrace-attach')
  add('Process access', 'process-access', attached.isIts)
  const written2 = await make('vm-write')
  add('Process tampering', 'process-tampering', written2.isIts)
  const memory = await make('memfd-create')
  add('Memory-backed file', 'memory-file-created', memory.isIts)
  return made
}

/** Scripts that a shell reads from files of their own. */
export async function makeScripts({ folder, count, say }: Work): Promise<Made> {
  say('scripts ...')
  const pids = new Set<unknown>()
  for (let index = 0; index < count; index += 1) {
    const path = join(folder, `script-${index}.sh`)
    writeFileSync(path, `# telemetry ${index}\nexit 0\n`)
    const child = spawn('/bin/sh', [path], { stdio: 'ignore' })
    pids.add(child.pid)
    await once(child, 'close')
  }
  const isOne = (event: Fields) =>
    pids.has(event['process.pid']) && /^# telemetry \d+\n/.test(String(event['cordon.script.content']))
  return { row: 'Script content', made: count, action: 'script', isOne }
}

/** Files whose contents are all different, written by a program of their own: six rows of facts. */
export async function makeContents({ folder, count, say }: Work): Promise<Made[]> {
  say('contents ...')
  const contents = join(folder, 'contents')
  mkdirSync(contents)
  const child = spawn(
    '/bin/sh',
    ['-c', `for i in $(seq ${count}); do seq $i $((i + 400)) > "$0/content-$i"; done`, contents],
    { stdio: 'ignore' },
  )
  await once(child, 'close')
  const isContent = (event: Fields) => String(event['file.path']).startsWith(`${contents}/content-`)
  const fact = (row: string, field: string, isFact: (value: unknown) => boolean): Made => ({
    row,
    made: count,
    action: 'file-examined',
    isOne: (event) => isContent(event) && isFact(event[field]),
  })
  const isText = (pattern: RegExp) => (value: unknown) => typeof value === 'string' && pattern.test(value)
  return [
    fact('MD5', 'file.hash.md5', isText(/^[0-9a-f]{32}$/)),
    fact('SHA-256', 'file.hash.sha256', isText(/^[0-9a-f]{64}$/)),
    fact('Fuzzy hash', 'file.hash.tlsh', isText(/^T1[0-9A-F]{70}$/)),
    fact('Entropy', 'cordon.file.entropy', (value) => typeof value === 'number' && value > 1),
    fact('Header bytes', 'cordon.file.header', isText(/^[0-9a-f]{64}$/)),
    fact('Size', 'file.size', (value) => typeof value === 'number' && value > 400),
  ]
}

function isBelow(event: Fields, folder: string): boolean {
  return String(event['file.path']).startsWith(`${folder}/`)
}
