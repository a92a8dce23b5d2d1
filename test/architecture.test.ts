/** The directions of imports, checked over what really goes into each program. */
import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { expect, test } from 'vitest'
import { bundle } from '../scripts/build.ts'
import { bundleConsole } from '../scripts/build-console.ts'
import { PROGRAMS, type Program } from '../scripts/setup/programs.ts'

const root = join(import.meta.dirname, '..')

/** What a program must not carry, and why. */
const FORBIDDEN: { readonly [P in Program]: readonly { readonly part: RegExp; readonly because: string }[] } =
  {
    'cordon-agent': [
      { part: /^controller\//, because: 'the agent knows the controller only by the protocol' },
      { part: /^node_modules\/(@fastify|fastify)\//, because: 'the agent serves nothing' },
      { part: /^(test|scripts)\//, because: 'programs carry no test code' },
    ],
    'cordon-controller': [
      { part: /^agent\//, because: 'the controller knows agents only by the protocol' },
      { part: /^node_modules\/(chokidar|@litko)\//, because: 'the controller watches no files' },
      { part: /^(test|scripts)\//, because: 'programs carry no test code' },
    ],
    cordon: [
      { part: /^agent\//, because: 'operators speak to the controller' },
      { part: /^node_modules\/better-sqlite3\//, because: 'the operator command reads no database' },
      { part: /^(test|scripts)\//, because: 'programs carry no test code' },
    ],
  }

test.each(Object.keys(PROGRAMS) as Program[])('%s carries nothing that it must not', async (program) => {
  const { metafile } = await bundle(program, false)
  const inputs = Object.keys(metafile.inputs)
  expect(inputs.length).toBeGreaterThan(20)
  const found = FORBIDDEN[program].flatMap(({ part, because }) =>
    inputs.filter((input) => part.test(input)).map((input) => `${input}: ${because}`),
  )
  expect(found).toEqual([])
})

/** What the console shares with the controller: words alone, nothing that needs Node. */
const SHARED_WITH_CONSOLE = /^controller\/dispatch\/action-words\.ts$/

test('the console carries nothing of the controller but its words', async () => {
  const { metafile } = await bundleConsole()
  const own = Object.keys(metafile.inputs).filter((input) => !input.startsWith('node_modules/'))
  expect(own.length).toBeGreaterThan(20)
  const wrong = own.filter(
    (input) => !/^controller\/console\//.test(input) && !SHARED_WITH_CONSOLE.test(input),
  )
  expect(wrong).toEqual([])
})

const isSource = (path: string) => /\.tsx?$/.test(path)

/** Every import of every source file, as paths from the root. */
function allImports(): { readonly from: string; readonly to: string }[] {
  const files = ['agent', 'controller', 'shared', 'scripts', 'test'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter(isSource)
      .map((name) => join(folder, name)),
  )
  expect(files.length).toBeGreaterThan(50)
  return files.flatMap((from) => {
    const text = readFileSync(join(root, from), 'utf8')
    return [...text.matchAll(/(?:^|\n)(?:import|export)[^'"]*?from\s+'([^']+)'|import\('([^']+)'\)/g)].map(
      (match) => {
        const target = match[1] ?? match[2] ?? ''
        return { from, to: target.startsWith('.') ? relative(root, join(root, from, '..', target)) : target }
      },
    )
  })
}

const isTest = (path: string) => /\.test\.ts$|\/testing\//.test(path)

test('imports go down only', () => {
  const imports = allImports()
  expect(imports.length).toBeGreaterThan(100)
  const wrong = imports.filter(
    ({ from, to }) =>
      (/^shared\//.test(from) && /^(agent|controller|scripts|test)\//.test(to)) ||
      (/^agent\//.test(from) && !isTest(from) && /^(controller|scripts|test)\//.test(to)) ||
      (/^controller\//.test(from) && !isTest(from) && /^(agent|scripts|test)\//.test(to)),
  )
  expect(wrong).toEqual([])
})

test('the console imports its own room, and nothing else imports it', () => {
  const imports = allImports().filter(({ from, to }) => !isTest(from) && /^(\w+\/|node:)/.test(to))
  const isConsole = (path: string) => /^controller\/console\//.test(path)
  const isOwn = (path: string) => /^(agent|controller|shared|scripts|test)\//.test(path)
  const inConsole = imports.filter(({ from }) => isConsole(from))
  expect(inConsole.length).toBeGreaterThan(50)
  const wrong = [
    ...inConsole.filter(
      ({ to }) => /^node:/.test(to) || (isOwn(to) && !isConsole(to) && !SHARED_WITH_CONSOLE.test(to)),
    ),
    ...imports.filter(({ from, to }) => !isConsole(from) && isConsole(to)),
  ]
  expect(wrong).toEqual([])
})

test('the pure layer uses nothing of Node', () => {
  const wrong = allImports().filter(
    ({ from, to }) =>
      /^shared\/(?!node\/)/.test(from) && !isTest(from) && (/^node:/.test(to) || /^shared\/node\//.test(to)),
  )
  expect(wrong).toEqual([])
})

test('on the agent, processes are started under platform/ alone', () => {
  const wrong = allImports().filter(
    ({ from, to }) => /^agent\/(?!platform\/)/.test(from) && !isTest(from) && to === 'node:child_process',
  )
  expect(wrong).toEqual([])
})

test('the kind of system is read in one file', () => {
  const readers = ['agent', 'controller', 'shared'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'))
      .map((name) => join(folder, name))
      .filter((path) => readFileSync(join(root, path), 'utf8').includes('process.platform')),
  )
  expect(readers).toEqual(['agent/platform/platform.ts'])
})

test('every source file opens by saying what it is for', () => {
  const silent = ['agent', 'controller', 'shared', 'scripts'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .map((name) => join(folder, name))
      .filter((path) => isSource(path) && !isTest(path))
      .filter((path) => !/^(#!.*\n)?\/\*\*/.test(readFileSync(join(root, path), 'utf8'))),
  )
  expect(silent).toEqual([])
})
