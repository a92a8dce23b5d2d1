/**
 * `npm start`: controller and agent on this host. `--demo` plays a harmless attack, `--exit` ends after it with
 * one JSON line and the status 0 when it was contained and verified.
 */
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { buildConsole } from './build-console.ts'
import { buildNative } from './build-native.ts'
import { runDemo } from './demo/demo.ts'
import { controllerEnvironment, type Deployment, startDeployment } from './setup/deployment.ts'
import { takeLock } from './setup/lock.ts'
import { signIn } from './setup/operator.ts'
import { ROOT, runProgram } from './setup/program.ts'
import { COMPILER, CONNECTION_LISTING, ensureSystemPrograms } from './setup/system-packages.ts'

const HELP = `usage: npm start [-- OPTIONS]

Runs Cordon's main job on this host: a controller on its embedded store, and an agent enrolled over mutual TLS.

  --demo          also play a harmless attack, contain it and show the proof
  --exit          with --demo: end afterwards; last line JSON, status 0 when contained and verified
  --state FOLDER  where state lives (default .cordon)
  --help          this text
`

const STATE_DEFAULT = join(ROOT, '.cordon')

const { values } = parseArgs({
  options: {
    demo: { type: 'boolean', default: false },
    exit: { type: 'boolean', default: false },
    state: { type: 'string', default: STATE_DEFAULT },
    help: { type: 'boolean', short: 'h', default: false },
  },
})

const say = (line: string) => process.stdout.write(`${line}\n`)

if (values.help) say(HELP)
else process.exitCode = await main()

async function main(): Promise<number> {
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => stop.abort())
  if (values.exit && !values.demo) {
    process.stderr.write('cordon: --exit goes with --demo\n')
    return 2
  }
  await prepare()
  const lock = takeLockIn(values.state)
  if (lock === null) return 1
  let deployment: Deployment | null = null
  try {
    deployment = await startDeployment({
      folder: values.state,
      say,
      operators: values.demo ? ['operator', 'demo'] : ['operator'],
    })
    lock.describe(deployment.apiUrl)
    if (stop.signal.aborted) return 130
    await tellReady(deployment)
    if (values.demo) {
      const contained = await demo(deployment)
      if (values.exit) return contained ? 0 : 1
    }
    return await stay(deployment, stop.signal)
  } catch (error) {
    process.stderr.write(`cordon: ${(error as Error).message}\n`)
    return 1
  } finally {
    await deployment?.stop()
    lock.release()
  }
}

/** What is missing is installed or named; without the kernel sensors the fallback ones work. */
async function prepare(): Promise<void> {
  const system = ensureSystemPrograms([...COMPILER, ...CONNECTION_LISTING], say)
  if (system.kind === 'missing') say(`note: ${system.mend}`)
  const page = await buildConsole()
  if (page.kind === 'built') say(`built the console in ${(page.durationMs / 1_000).toFixed(1)} s`)
  const native = buildNative()
  if (native.kind === 'built') say(`built the native addon in ${(native.durationMs / 1_000).toFixed(1)} s`)
  if (native.kind === 'failed') say(`note: no kernel sensors: ${native.reason}`)
}

function takeLockIn(folder: string) {
  const lock = takeLock(folder)
  if (lock.ok) return lock
  process.stderr.write(
    `cordon: already running with this state (pid ${lock.holder.pid}${lock.holder.url ? `, ${lock.holder.url}` : ''}); ` +
      'stop it with Ctrl-C there, or give another folder with --state\n',
  )
  return null
}

async function tellReady(deployment: Deployment): Promise<void> {
  const { apiUrl, agentFacts } = deployment
  const environment = controllerEnvironment(deployment.folders, deployment.ports, {})
  const code = await runProgram('controller/main.ts', ['first-sign-in'], environment)
  // From a checkout the programs look into .cordon/ by themselves.
  const home =
    values.state === STATE_DEFAULT ? '' : `CORDON_CLI_HOME=${join(deployment.folders.operators, 'operator')} `
  const cordon = `${home}npm run --silent cordon --`
  say('')
  say(`agent ${agentFacts.agentId.slice(0, 8)} watches this host: ${agentFacts.sensors.join(' and ')}`)
  if (!agentFacts.sensors.includes('ebpf')) {
    say(
      '  fallback sensors: what lives less than a second may be missed; as root the kernel sensors see everything',
    )
  }
  say(`READY ${apiUrl}`)
  if (code.code === 0) {
    const first = code.stdout.trim()
    say('sign in as the first administrator, once, in a browser or on the command line:')
    say(`  ${apiUrl}/sign-in#first=${first}`)
    say(`  ${cordon} auth login --url ${apiUrl} --name admin --first ${first}`)
  }
  const [first, second] = ['X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STAND', 'ARD-ANTIVIRUS-TEST-FILE!$H+H*']
  say('see a first detection:')
  say(`  printf '%s%s' '${first}' '${second}' > /tmp/cordon-test.txt`)
  say(`  ${cordon} incident ls`)
  say(`state is in ${values.state}; Ctrl-C stops everything; docs: README.md`)
}

async function demo(deployment: Deployment): Promise<boolean> {
  const environment = controllerEnvironment(deployment.folders, deployment.ports, {})
  const operator = await signIn({
    name: 'demo',
    home: join(deployment.folders.operators, 'demo'),
    apiUrl: deployment.apiUrl,
    controllerEnvironment: environment,
  })
  const result = await runDemo({ operator, testRoot: deployment.folders.testRoot, say })
  say(result.demo === 'contained' ? 'demo: contained and verified' : `demo: NOT contained: ${result.problem}`)
  if (values.exit) {
    await deployment.stop()
    say(JSON.stringify(result))
  }
  return result.demo === 'contained'
}

/** Until a signal, or until one of the programs ends by itself. */
async function stay(deployment: Deployment, signal: AbortSignal): Promise<number> {
  const stopped = new Promise<number>((resolve) => {
    if (signal.aborted) resolve(0)
    signal.addEventListener('abort', () => resolve(0))
  })
  const died = [deployment.controller, deployment.agent].map(async (program) => {
    const code = await program.exited
    if (signal.aborted) return 0
    process.stderr.write(`cordon: ${program.name} ended by itself (${code}); its log: ${program.logPath}\n`)
    return 1
  })
  const code = await Promise.race([stopped, ...died])
  if (code === 0) say('\nstopping ...')
  return code
}
