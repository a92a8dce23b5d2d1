/** One running scanner child, seen from the agent: it examines one file at a time, within bounds, or is ended. */
import { closeSync } from 'node:fs'
import type { NativeAddon } from '../native/addon.ts'
import type { ScannerProcess } from '../platform/linux/scanner-process.ts'
import { createFrameDecoder, encodeFrame, REPLY_BYTES_MAX, type ScanSetup } from './scan-protocol.ts'
import { parseReply, type ScanReply } from './scan-reply.ts'

export type DescriptorPassing = Pick<NativeAddon, 'socketPair' | 'sendDescriptor'>

export interface ScannerChildOptions {
  /** Starts the program with its end of the descriptor socket as descriptor 3, or without one. */
  readonly start: (descriptorSocket: number | null) => ScannerProcess
  readonly descriptors: DescriptorPassing | null
  readonly setup: Omit<ScanSetup, 'transport' | 'parentPid'>
  readonly startTimeoutMs: number
  readonly fileTimeoutMs: number
  readonly residentBytesMax: number
}

/** How the examination of one file ended. `lost`: the child is gone, and was not ended for this file's sake. */
type ChildAnswer =
  | { readonly kind: 'reply'; readonly reply: Exclude<ScanReply, { kind: 'ready' }> }
  | { readonly kind: 'timeout' | 'memory' }
  | { readonly kind: 'lost'; readonly why: string }

export interface ScannerChild {
  readonly pid: number
  /** Resolves once the rules are loaded, with what the child says of itself; null when it ended before. */
  readonly ready: Promise<Extract<ScanReply, { kind: 'ready' }> | null>
  /** Resolves when the process is gone, with how it ended. */
  readonly exited: Promise<string>
  isGone(): boolean
  /** CPU time since this was asked before, in milliseconds; null: it cannot be told. */
  takeCpuMs(): number | null
  /** Examines the file that is open here as `fd`; one at a time. The caller closes `fd` afterwards. */
  examine(fd: number): Promise<ChildAnswer>
  /** Resolves once the process is gone. */
  stop(): Promise<void>
}

const MEMORY_CHECK_INTERVAL_MS = 50

export function startScannerChild(options: ScannerChildOptions): ScannerChild {
  const { descriptors } = options
  const [ownSocket, childSocket] = descriptors?.socketPair() ?? [null, null]
  let started: ScannerProcess
  try {
    started = options.start(childSocket)
  } catch (error) {
    if (ownSocket !== null) closeSync(ownSocket)
    throw error
  } finally {
    if (childSocket !== null) closeSync(childSocket)
  }
  const process_ = started
  const exit = Promise.withResolvers<string>()
  const ready = Promise.withResolvers<Extract<ScanReply, { kind: 'ready' }> | null>()
  const decoder = createFrameDecoder(REPLY_BYTES_MAX)
  let isGone = false
  let endedBecause: string | null = null
  let isReady = false
  let requestId = 0
  let cpuTakenMs = 0
  let waiting: { readonly id: number; readonly resolve: (answer: ChildAnswer) => void } | null = null

  function end(why: string): void {
    endedBecause ??= why
    process_.kill()
  }

  function settle(answer: ChildAnswer): void {
    waiting?.resolve(answer)
    waiting = null
  }

  function take(text: string): void {
    const reply = parseReply(text)
    if (reply === null) {
      end('it answered with something else than an answer')
    } else if (reply.kind === 'ready') {
      if (isReady) end('it said twice that it is ready')
      isReady = true
      ready.resolve(reply)
    } else if (waiting === null || reply.id !== waiting.id) {
      end('it answered what was not asked')
    } else {
      settle({ kind: 'reply', reply })
    }
  }

  const startTimer = setTimeout(() => {
    if (!isReady) end(`not ready within ${options.startTimeoutMs} ms`)
  }, options.startTimeoutMs)

  process_.onOutput((chunk) => {
    try {
      // Nothing it says counts once it is to end.
      if (endedBecause === null) for (const text of decoder.push(chunk)) take(text)
    } catch (error) {
      end(error instanceof Error ? error.message : String(error))
    }
  })
  process_.onExit((how) => {
    clearTimeout(startTimer)
    isGone = true
    if (ownSocket !== null) closeSync(ownSocket)
    const why = endedBecause === null ? how : `${endedBecause} (${how})`
    ready.resolve(null)
    settle({ kind: 'lost', why })
    exit.resolve(why)
  })
  process_.write(
    encodeFrame({
      ...options.setup,
      transport: descriptors === null ? 'proc' : 'socket',
      parentPid: process.pid,
    } satisfies ScanSetup),
  )

  function send(id: number, fd: number): void {
    if (descriptors === null || ownSocket === null) {
      process_.write(encodeFrame({ id, fd }))
      return
    }
    descriptors.sendDescriptor(ownSocket, fd, Buffer.from(JSON.stringify({ id, fd })))
  }

  /** Ends the child when it takes too long or too much; returns what stops the watch. */
  function watch(): () => void {
    const timer = setTimeout(() => {
      settle({ kind: 'timeout' })
      end(`a file took longer than ${options.fileTimeoutMs} ms`)
    }, options.fileTimeoutMs)
    const memoryTimer = setInterval(() => {
      if ((process_.residentBytes() ?? 0) <= options.residentBytesMax) return
      settle({ kind: 'memory' })
      end(`it took more than ${options.residentBytesMax} bytes of memory`)
    }, MEMORY_CHECK_INTERVAL_MS)
    return () => {
      clearTimeout(timer)
      clearInterval(memoryTimer)
    }
  }

  return {
    pid: process_.pid,
    ready: ready.promise,
    exited: exit.promise,
    isGone: () => isGone || endedBecause !== null,
    takeCpuMs() {
      const cpuMs = isGone ? null : process_.cpuMs()
      if (cpuMs === null) return null
      const takenMs = Math.max(0, cpuMs - cpuTakenMs)
      cpuTakenMs = cpuMs
      return takenMs
    },
    async examine(fd) {
      if (isGone) return { kind: 'lost', why: 'it is gone' }
      if (waiting !== null) throw new Error('the scanner child examines one file at a time')
      requestId += 1
      const id = requestId
      const answer = new Promise<ChildAnswer>((resolve) => {
        waiting = { id, resolve }
      })
      const stopWatching = watch()
      try {
        send(id, fd)
      } catch (error) {
        end(error instanceof Error ? error.message : String(error))
      }
      try {
        return await answer
      } finally {
        stopWatching()
      }
    },
    async stop() {
      if (!isGone) end('the agent stops it')
      await exit.promise
    },
  }
}
