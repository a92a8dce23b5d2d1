import { expect, test } from 'vitest'
import type { ExecRecord, KernelText, ScriptRecord } from '../records.ts'
import type { ScriptChunk } from './raw-activity.ts'
import { createScripts } from './scripts.ts'

const key = (pid: number) => ({ pid, startTicks: pid })

function exec(pid: number, executable: string, ...words: readonly KernelText[]): ExecRecord {
  return {
    kind: 'exec',
    timestampMs: 1_000,
    process: key(pid),
    parent: key(1),
    userId: 0,
    groupId: 0,
    sessionId: 1,
    executable,
    arguments: [executable, ...words],
    argumentsTruncated: false,
    workingDirectory: '/',
    file: null,
  }
}

function chunk(pid: number, path: string | null, text: string, rest: Partial<ScriptChunk> = {}): ScriptChunk {
  const content = Buffer.from(text)
  return {
    timestampMs: 2_000,
    process: key(pid),
    descriptor: path === null ? 0 : 3,
    position: content.length,
    inode: 77,
    path,
    content,
    bytesRead: content.length,
    ...rest,
  }
}

function setUp() {
  const told: ScriptRecord[] = []
  const scripts = createScripts((record) => told.push(record))
  const texts = () => told.map(({ content }) => Buffer.from(content).toString())
  return { scripts, told, texts }
}

test.each([
  ['/bin/sh', ['-c', 'echo one']],
  ['/usr/bin/bash', ['-lc', 'echo one']],
  ['/usr/bin/python3.11', ['-c', 'echo one']],
  ['/usr/bin/perl', ['-e', 'echo one']],
  ['/usr/local/bin/node', ['--eval', 'echo one']],
])('%s %j is told with its text at once', (executable, words) => {
  const { scripts, told, texts } = setUp()
  scripts.exec(exec(9, executable, ...words))
  expect(texts()).toEqual(['echo one'])
  expect(told[0]).toMatchObject({ origin: 'argument', path: null, truncated: false, process: key(9) })
})

test('a text after the script is the script’s own argument', () => {
  const { scripts, texts } = setUp()
  scripts.exec(exec(9, '/bin/sh', '/srv/run.sh', '-c', 'echo one'))
  expect(texts()).toEqual([])
})

test('pieces of one file are one script, told when its process ends', () => {
  const { scripts, told, texts } = setUp()
  scripts.exec(exec(9, '/bin/sh', '/srv/run.sh'))
  scripts.read(chunk(9, '/srv/run.sh', 'first\n'))
  scripts.read(chunk(9, '/srv/run.sh', 'second\n', { position: 13 }))
  expect(texts()).toEqual([])
  scripts.finish(key(9))
  expect(texts()).toEqual(['first\nsecond\n'])
  expect(told[0]).toMatchObject({ origin: 'file', path: '/srv/run.sh', truncated: false })
})

test('a shell that looks at the beginning and goes back is told once', () => {
  const { scripts, texts } = setUp()
  scripts.exec(exec(9, '/bin/bash', '/srv/run.sh'))
  scripts.read(chunk(9, '/srv/run.sh', '#!/bin/b'))
  scripts.read(chunk(9, '/srv/run.sh', '#!/bin/bash\ntrue\n'))
  scripts.tellAll()
  expect(texts()).toEqual(['#!/bin/bash\ntrue\n'])
})

test('what nobody adds to is told after a while, also when the clock was set back', () => {
  const { scripts, texts } = setUp()
  scripts.exec(exec(9, '/bin/sh'))
  scripts.read(chunk(9, null, 'from a pipe\n'))
  scripts.tellQuiet(2_100)
  expect(texts()).toEqual([])
  scripts.tellQuiet(1_000)
  expect(texts()).toEqual(['from a pipe\n'])
})

test.each([
  ['standard input of a program that was given a script', '/bin/sh', ['/srv/run.sh'], null],
  ['a data file', '/usr/bin/python3', ['/srv/run.py'], '/srv/data.csv'],
  ['a library that the distribution brings', '/usr/bin/python3', ['/srv/run.py'], '/usr/lib/python3/os.py'],
  ['the names of locales', '/bin/bash', ['/srv/run.sh'], '/usr/share/locale/locale.alias'],
  ['a script in another language', '/usr/bin/perl', ['/srv/run.pl'], '/srv/other.py'],
])('%s is no script', (_what, executable, words, path) => {
  const { scripts, texts } = setUp()
  scripts.exec(exec(9, executable, ...words))
  scripts.read(chunk(9, path, 'data\n'))
  scripts.tellAll()
  expect(texts()).toEqual([])
})

test('a shell that forked goes on being one, and another program ends that', () => {
  const { scripts, texts } = setUp()
  scripts.exec(exec(9, '/bin/sh'))
  scripts.fork({ kind: 'fork', timestampMs: 1, process: key(10), parent: key(9) })
  scripts.read(chunk(10, null, 'child\n'))
  scripts.finish(key(10))
  expect(texts()).toEqual(['child\n'])
  scripts.exec(exec(10, '/bin/cat'))
  scripts.read(chunk(10, null, 'data\n'))
  scripts.tellAll()
  expect(texts()).toEqual(['child\n'])
})

test('a script is told up to 64 KiB, and that there was more', () => {
  const { scripts, told } = setUp()
  scripts.exec(exec(9, '/bin/sh', '/srv/run.sh'))
  for (let index = 1; index <= 20; index += 1)
    scripts.read(chunk(9, '/srv/run.sh', 'x'.repeat(4_096), { position: index * 4_096 + 1 }))
  expect(told).toHaveLength(1)
  expect(told[0]?.content).toHaveLength(65_536)
})

test('no more than 512 scripts are held', () => {
  const { scripts, told } = setUp()
  for (let pid = 1; pid <= 600; pid += 1) {
    scripts.exec(exec(pid, '/bin/sh'))
    scripts.read(chunk(pid, null, `${pid}\n`))
  }
  expect(told).toHaveLength(600 - 512)
  scripts.tellAll()
  expect(told).toHaveLength(600)
})
