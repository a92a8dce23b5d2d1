/**
 * What interpreters run: texts after `-c` and its like, files they read and what comes through pipes. The kernel
 * tells what an interpreter reads; here it is put together, by process and file, and what is data and no script
 * is left out as far as that can be told from outside.
 */
import type { ExecRecord, ExitRecord, ForkRecord, KernelText, ProcessKey, ScriptRecord } from '../records.ts'
import type { ScriptChunk } from './raw-activity.ts'

export interface Scripts {
  /** Before a program starts in a process, or the process ends: what it has read until then is whole. */
  finish(process: ProcessKey): void
  /** After a program started. Tells texts among its arguments at once. */
  exec(record: ExecRecord): void
  fork(record: ForkRecord): void
  exit(record: ExitRecord): void
  read(chunk: ScriptChunk): void
  /** Tells what nobody has added to for a while; call it often. */
  tellQuiet(nowMs: number): void
  tellAll(): void
}

interface Interpreter {
  /** Null: a shell, which has no need of names. */
  readonly source: RegExp | null
  /** Names (without folders) of the files among its arguments. */
  readonly argumentNames: ReadonlySet<string>
  /** It was given neither a file nor a text: it runs what it is fed. */
  readonly isFed: boolean
}

interface Unfinished {
  readonly process: ProcessKey
  readonly startedMs: number
  readonly path: KernelText | null
  readonly pieces: Uint8Array[]
  bytes: number
  isCut: boolean
  lastMs: number
}

const shellName = /^(?:sh|bash|dash|zsh|ksh|mksh|ash|fish|busybox|tcsh)[\d.]*$/
/** Other interpreters, and the names of what is written for each. */
const languages: readonly (readonly [program: RegExp, source: RegExp])[] = [
  [/^python[\d.]*$/, /\.pyw?$/],
  [/^perl[\d.]*$/, /\.(?:pl|pm|t)$/],
  [/^ruby[\d.]*$/, /\.rb$/],
  [/^node(?:js)?$/, /\.[cm]?[jt]s$/],
  [/^php[\d.]*$/, /\.(?:php|phar|inc)$/],
  [/^lua[\d.]*$/, /\.lua$/],
  [/^tclsh[\d.]*$/, /\.tcl$/],
  [/^[gm]?awk$/, /\.awk$/],
]
/** Options that the text itself follows. `-c` may stand with others, as in `bash -lc`. */
const shellTextOption = /^-[a-zA-Z]*c$/
const textOptions = /^(?:-c|-e|-E|-r|-p|--eval|--print)$/
/** What a distribution brings, and every start reads. */
const systemLibrary = /^\/(?:usr\/)?(?:lib|lib64|share)\//
/** Shells move the script that they run up here. */
const shellScriptDescriptorMin = 10
const hashBang = Buffer.from('#!')

const quietMs = 300
const bytesMax = 64 * 1024
const unfinishedMax = 512
const interpretersMax = 8_192

export function createScripts(add: (record: ScriptRecord) => void): Scripts {
  const interpreters = new Map<string, Interpreter>()
  /** In the order of their first piece. */
  const unfinished = new Map<string, Unfinished>()

  function remember(key: ProcessKey, interpreter: Interpreter): void {
    interpreters.set(nameOf(key), interpreter)
    if (interpreters.size <= interpretersMax) return
    const oldest = interpreters.keys().next()
    if (!oldest.done) interpreters.delete(oldest.value)
  }

  function tell(key: string, script: Unfinished): void {
    unfinished.delete(key)
    add({
      kind: 'script',
      timestampMs: script.startedMs,
      process: script.process,
      origin: script.path === null ? 'input' : 'file',
      content: Buffer.concat(script.pieces),
      truncated: script.isCut,
      path: script.path,
    })
  }

  return {
    finish(key) {
      if (unfinished.size === 0) return
      const prefix = `${nameOf(key)} `
      for (const [name, script] of unfinished) if (name.startsWith(prefix)) tell(name, script)
    },
    exec(record) {
      const interpreter = interpreterOf(record)
      if (interpreter === null) {
        interpreters.delete(nameOf(record.process))
        return
      }
      remember(record.process, interpreter)
      const text = textArgument(record, interpreter.source === null)
      if (text === null) return
      const content = typeof text === 'string' ? Buffer.from(text) : text
      add({
        kind: 'script',
        timestampMs: record.timestampMs,
        process: record.process,
        origin: 'argument',
        content: content.subarray(0, bytesMax),
        truncated: record.argumentsTruncated || content.length > bytesMax,
        path: null,
      })
    },
    fork(record) {
      if (interpreters.size === 0) return
      const parent = interpreters.get(nameOf(record.parent))
      if (parent) remember(record.process, parent)
    },
    exit(record) {
      interpreters.delete(nameOf(record.process))
    },
    read(chunk) {
      const key = `${nameOf(chunk.process)} ${chunk.path === null ? `fd${chunk.descriptor}` : chunk.inode}`
      let script = unfinished.get(key)
      if (!script) {
        const interpreter = interpreters.get(nameOf(chunk.process))
        if (!interpreter || !isScript(chunk, interpreter)) return
        script = {
          process: chunk.process,
          startedMs: chunk.timestampMs,
          path: chunk.path,
          pieces: [],
          bytes: 0,
          isCut: false,
          lastMs: chunk.timestampMs,
        }
        unfinished.set(key, script)
      }
      // A shell looks at the beginning of a file, goes back, and reads it.
      if (chunk.path !== null && chunk.position === chunk.bytesRead) {
        script.pieces.length = 0
        script.bytes = 0
      }
      const room = bytesMax - script.bytes
      script.pieces.push(chunk.content.subarray(0, room))
      script.bytes += Math.min(room, chunk.content.length)
      script.isCut ||= chunk.content.length > room || chunk.bytesRead > chunk.content.length
      script.lastMs = chunk.timestampMs
      if (script.bytes >= bytesMax) tell(key, script)
      if (unfinished.size > unfinishedMax) {
        const oldest = unfinished.entries().next()
        if (!oldest.done) tell(...oldest.value)
      }
    },
    tellQuiet(nowMs) {
      for (const [key, script] of unfinished) {
        // A clock that was set back must not keep a script waiting.
        if (Math.abs(nowMs - script.lastMs) >= quietMs) tell(key, script)
      }
    },
    tellAll() {
      for (const [key, script] of unfinished) tell(key, script)
    },
  }
}

function nameOf(key: ProcessKey): string {
  return `${key.pid}.${key.startTicks}`
}

function baseName(path: KernelText): string {
  const text = typeof path === 'string' ? path : Buffer.from(path).toString('latin1')
  return text.slice(text.lastIndexOf('/') + 1)
}

function interpreterOf(record: ExecRecord): Interpreter | null {
  const name = baseName(record.executable)
  const isShell = shellName.test(name)
  const source = languages.find(([program]) => program.test(name))?.[1] ?? null
  if (!isShell && source === null) return null
  const rest = record.arguments.slice(1)
  const argumentNames = new Set(rest.filter((argument) => argument[0] !== '-').map(baseName))
  const isFed = argumentNames.size === 0 || rest.some((argument) => argument === '-s' || argument === '-')
  return { source, argumentNames, isFed: isFed && textArgument(record, isShell) === null }
}

/** The text after the option that asks to run it, or null. */
function textArgument(record: ExecRecord, isShell: boolean): KernelText | null {
  for (const [index, argument] of record.arguments.entries()) {
    if (index === 0) continue
    if (typeof argument !== 'string' || !argument.startsWith('-')) return null
    if ((isShell ? shellTextOption : textOptions).test(argument)) return record.arguments[index + 1] ?? null
  }
  return null
}

function isScript(chunk: ScriptChunk, interpreter: Interpreter): boolean {
  if (chunk.descriptor === 0) return interpreter.isFed
  const isShell = interpreter.source === null
  if (chunk.path === null) return isShell && chunk.descriptor >= shellScriptDescriptorMin
  const path = typeof chunk.path === 'string' ? chunk.path : Buffer.from(chunk.path).toString('latin1')
  if (interpreter.argumentNames.has(baseName(chunk.path))) return true
  if (systemLibrary.test(path)) return false
  // What a shell reads by itself it runs; data comes by standard input.
  if (isShell) return true
  return (
    interpreter.source?.test(path) === true || hashBang.equals(chunk.content.subarray(0, hashBang.length))
  )
}
