/** The agent, joined: the one place where its rooms meet. `main.ts` is its command line. */
import { mkdirSync, realpathSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import type { CordonEvent, EventOf } from '../shared/events/event.ts'
import { compileIndicators } from '../shared/ioc/matcher.ts'
import { restoreAddons } from '../shared/node/addons.ts'
import { readContent, shippedContentFolder } from '../shared/node/content.ts'
import type { Logger } from '../shared/node/logger.ts'
import { aborted, pause, runEvery, runTogether } from '../shared/node/loop.ts'
import type { Inventory } from '../shared/protocol/messages.ts'
import { createAlerts } from './actions/alerts.ts'
import { createCollectAction } from './actions/collect.ts'
import { createInterlock } from './actions/interlock.ts'
import { createIsolateAction, createReleaseAction } from './actions/isolation/actions.ts'
import { serveCodes } from './actions/isolation/code-socket.ts'
import { lookupAmong } from './actions/isolation/controllers.ts'
import { createHostIsolation } from './actions/isolation/host-isolation.ts'
import { openJournal } from './actions/journal.ts'
import { createKillAction } from './actions/kill.ts'
import { createQuarantineAction } from './actions/quarantine.ts'
import { createReceiver } from './actions/receiver.ts'
import { createRestoreAction } from './actions/restore.ts'
import { createScanAction } from './actions/scan.ts'
import { createSpool } from './actions/spool.ts'
import { createTakings } from './actions/takings.ts'
import { openTelemetryLists } from './actions/telemetry-lists.ts'
import { createVault } from './actions/vault.ts'
import { openBuffer } from './buffer/buffer.ts'
import { bufferBytesMax, reservedBytesFor } from './buffer/size.ts'
import type { AgentSettings } from './config/settings.ts'
import { createDetection } from './detect/detection.ts'
import { scanPath } from './detect/scan-path.ts'
import { createScanner } from './detect/scanner.ts'
import { AgentError } from './error.ts'
import { agentStarted, agentStopped, sensorChanged, tampered } from './health/events.ts'
import { foreignCode } from './health/foreign-code.ts'
import { collectInventory } from './health/inventory.ts'
import { keepSmall } from './health/memory.ts'
import { createServiceNotifier } from './health/notify.ts'
import type { StatusReport } from './health/report.ts'
import { serveStatus } from './health/status-socket.ts'
import { createExpiredRenewal } from './identity/expired-renewal.ts'
import { type Identity, openIdentity } from './identity/identity.ts'
import { loadNative } from './native/addon.ts'
import { createPidfdOpener, openProcessByPid } from './platform/linux/processes.ts'
import { scannerProgram } from './platform/linux/program.ts'
import { startScannerProcess } from './platform/linux/scanner-process.ts'
import { notifySender } from './platform/linux/systemd.ts'
import { selectPlatform } from './platform/platform.ts'
import { createEventBuilder } from './sensors/event-builder.ts'
import { createLayers } from './sensors/layers.ts'
import { createOwnRecords } from './sensors/own-records.ts'
import { createProcessTable } from './sensors/process-table.ts'
import { createRecordRoutes } from './sensors/record-routes.ts'
import { selectLayers } from './sensors/select-layers.ts'
import { coverageOf } from './sensors/telemetry/coverage.ts'
import { compileTelemetryLists, type ProcessFacts } from './sensors/volume/telemetry-matcher.ts'
import { createVolume } from './sensors/volume/volume.ts'
import { createFileUploads } from './uplink/files.ts'
import { createUplink, type UplinkState } from './uplink/uplink.ts'
import { AGENT_VERSION } from './version.ts'

export interface ReadyFacts {
  readonly agentId: string
  readonly pid: number
  readonly sensors: readonly string[]
}

const AGENT_ADDONS = ['better-sqlite3', 'yara-x', 'cordon'] as const
const RENEWAL_CHECK_MS = 3_600_000
const USER_NAMES_INTERVAL_MS = 10_000
const READY_WAIT_MS = 10_000

/** Runs until `signal` aborts. Rejects with what a person can mend: not enrolled, no sensor left. */
export async function runAgent(
  settings: AgentSettings,
  logger: Logger,
  signal: AbortSignal,
  ready: (facts: ReadyFacts) => void,
): Promise<void> {
  const selected = selectPlatform()
  if (!selected.ok) throw new AgentError(selected.reason)
  const { platform } = selected
  const clock = Date.now
  mkdirSync(settings.stateFolder, { recursive: true, mode: 0o700 })
  const stateFolder = realpathSync(settings.stateFolder)
  const identity = openOrFail(stateFolder)
  const native = loadNative()
  if (!native.ok) logger.warn({ reason: native.reason }, 'the native addon is missing: fallback sensors')

  const serviceManager = createServiceNotifier({
    environment: process.env,
    pid: process.pid,
    send: notifySender(native.ok ? native.native : null),
    signal,
    warn: (reason) => logger.warn({ reason }, 'systemd was not told'),
  })

  const bootId = platform.readBootId()
  const ownPids = new Set<number>([process.pid])
  const ownFolders = [stateFolder]
  const content = readContent([shippedContentFolder(), ...settings.contentFolders])
  for (const problem of content.problems) logger.warn({ problem }, 'content was left out')

  const bytesMax = settings.bufferBytesMax ?? bufferBytesMax(freeBytes(stateFolder))
  using buffer = openBuffer({
    path: join(stateFolder, 'buffer.db'),
    bytesMax,
    reservedBytes: reservedBytesFor(bytesMax),
    logger,
    clock,
  })
  const emit = (event: CordonEvent) => buffer.add(event)
  const tellTampering = (reason: string) => {
    logger.warn({ reason }, 'the agent was tampered with')
    emit(tampered(reason, clock()))
  }
  const tellForeignAddons = () => restoreAddons(AGENT_ADDONS).forEach(tellTampering)
  for (const found of foreignCode(process.env)) tellTampering(found)
  tellForeignAddons()

  const scanner = createScanner({
    sources: content.yaraSources,
    startProcess(socket) {
      tellForeignAddons()
      return startScannerProcess(scannerProgram(), socket)
    },
    descriptors: native.ok ? native.native : null,
    ownFolders,
    logger,
    clock,
    onSpawn(pid) {
      // The pid of the scanner before it may be anybody's by now.
      for (const before of ownPids) if (before !== process.pid) ownPids.delete(before)
      ownPids.add(pid)
      const startTicks = platform.readProcess(pid)?.process.startTicks
      if (startTicks !== undefined) layers.exclude({ pid, startTicks })
    },
    limits: {
      scanBytesMax: settings.scanBytesMax,
      fileTimeoutMs: settings.scanTimeoutMs,
      residentBytesMax: settings.scannerMemoryBytesMax,
      cpuShare: settings.scanCpuShare,
    },
  })
  let userNames = platform.readUserNames()
  const table = createProcessTable({
    agentId: identity.agentId,
    bootId,
    bootTimeMs: platform.readBootTimeMs(),
    clock,
    readProcess: platform.readProcess,
  })
  const takings = createTakings(clock)
  const builder = createEventBuilder({
    table,
    knownHash: scanner.knownHash,
    userName: (id) => userNames.get(id),
    ownPids,
    ownFolders,
    isOwnPlace: takings.isWithin,
    clock,
    readSetting: platform.readSetting,
  })
  const detection = createDetection({
    agentId: identity.agentId,
    scanner,
    matcher: compileIndicators(content.indicators, clock()),
    processContext: builder.context,
    emit,
    clock,
  })
  const volume = createVolume({
    sink(records) {
      for (const observation of builder.build(records)) {
        emit(observation.event)
        detection.handle(observation)
      }
    },
    clock: () => performance.now(),
    lookUpProcess: factsOfProcess,
    concernsAgent: createOwnRecords({ ownPids, ownFolders }),
    examine: (record) => detection.examine({ path: record.path, identity: null, why: 'written' }, record.pid),
  })
  const layers = selectLayers({
    settings,
    native,
    platform,
    ownPids,
    ownFolders,
    stateFolder,
    clock,
    warn: (reason) => logger.warn({ reason }, 'the watch of the configuration'),
  })
  const routes = createRecordRoutes({
    sink: volume.accept,
    clock,
    observeFile: layers.observeFile,
    filesLost: layers.filesLost,
    noticeMounts: layers.noticeMounts,
  })
  const sensors = createLayers(layers.chains, (change) => {
    logger.info(change, change.inForce ? 'a sensor is in force' : 'a sensor is no longer in force')
    emit(sensorChanged(change, clock()))
    if (sensors.complete()) buffer.sees()
    uplink.send(statusMessage())
  })

  using journal = openJournal({
    path: join(stateFolder, 'journal.db'),
    emit(event) {
      emit(event)
      takings.note(event)
      if (changedTheHost(event)) detection.forgetTold()
    },
    clock,
    logger,
    lost: tellTampering,
  })
  const telemetryLists = openTelemetryLists({
    stateFolder,
    journal,
    compile: compileTelemetryLists,
    setLists: volume.setLists,
    tampered: tellTampering,
    clock,
  })
  const installedAsService = platform.runsAsService()
  const interlock = createInterlock({
    installedAsService,
    testRoot: settings.testRoot,
    testCgroup: settings.testCgroup,
    recordedNetworkNamespace: settings.launcherNetworkNamespace,
  })
  const vault = createVault({
    folder: join(stateFolder, 'quarantine'),
    fileBytesMax: settings.quarantineFileBytesMax,
    bytesMax: settings.quarantineBytesMax,
    attributes: native.ok ? native.native : null,
  })
  const uploads = createFileUploads({ logger })
  const gatewayUrl = settings.gatewayUrl ?? identity.gatewayUrl
  const isolation = createHostIsolation({
    stateFolder,
    interlock,
    gatewayUrl,
    confirmWithinMs: settings.isolationConfirmMs,
    buffer,
    journal,
    uplink: () => uplink,
    emit,
    changed: () => uplink.send(statusMessage()),
    clock,
    logger,
  })
  const receiver = createReceiver({
    verificationContext() {
      const { sessionNonce } = uplink.state()
      return sessionNonce === null
        ? null
        : {
            keyset: identity.keyset(),
            fleet: identity.fleet,
            agentId: identity.agentId,
            agentKeyFingerprint: identity.keyFingerprint(),
            sessionNonce,
          }
    },
    journal,
    actions: {
      killProcess: createKillAction({
        bootId,
        interlock,
        openProcess: native.ok ? createPidfdOpener(native.native) : openProcessByPid,
        knownDescendants: table.descendantsOf,
      }),
      quarantineFile: createQuarantineAction({ vault, interlock, ownFolders, clock }),
      restoreFile: createRestoreAction({ vault, interlock, ownFolders, native }),
      collectFile: createCollectAction({
        spool: createSpool({ folder: join(stateFolder, 'collected'), bytesMax: settings.collectBytesMax }),
        uploads,
        interlock,
        ownFolders,
        isOpen: (commandId) => journal.open().some((command) => command.commandId === commandId),
        clock,
      }),
      scanPath: createScanAction(async (path, { filesMax, signal: stop }) => {
        const summary = await scanPath(path, { scanner, detection, filesMax, signal: stop })
        if (stop.aborted) return { kind: 'aborted' }
        const skipped = summary.skipped.reduce((sum, { count }) => sum + count, 0)
        return { kind: 'scanned', summary: { ...summary, skipped } }
      }),
      isolateHost: createIsolateAction(isolation),
      releaseHost: createReleaseAction(isolation),
      setTelemetryLists: telemetryLists.action,
    },
    emit,
    clock,
    logger,
  })

  const keysetAlerts = createAlerts(emit, clock)
  // Takes about a second, for which the sensors do not wait.
  const inventoryTaken = collectInventory()
  let inventory: Inventory
  const uplink = createUplink({
    gatewayUrl,
    tlsOptions() {
      const reachable = isolation.reachable()
      return {
        ...identity.tlsOptions(),
        // An isolated host can ask no name server.
        ...(reachable === null ? {} : { lookup: lookupAmong(reachable) }),
      }
    },
    buffer,
    helloFacts: () => ({
      agentVersion: AGENT_VERSION,
      bootId,
      keysetVersion: identity.keyset().version,
      inventory,
    }),
    status: () => statusMessage(),
    files: uploads,
    handlers: {
      onCommand: (command) => receiver.receive(command),
      onCancel: (commandId) => receiver.cancel(commandId),
      onKeyset({ keyset, rootSignature }) {
        const saved = identity.saveKeyset({ keyset, rootSignature })
        if (saved.ok) return
        const { kind, reason } = saved.failure
        logger.warn({ kind, reason }, 'a keyset was refused')
        // The one in force may come twice, by itself and as asked for: that is no attack.
        if (kind !== 'version') keysetAlerts.raise(`a keyset was refused: ${kind}: ${reason}`)
      },
      onRenewedCertificate(certificateChainPem) {
        const finished = identity.finishRenewal(certificateChainPem)
        if (finished.ok) uplink.reconnect('the certificate was renewed')
        else logger.warn({ reason: finished.reason }, 'a renewed certificate was refused')
      },
      onConnected(welcome) {
        if (welcome.keysetVersion > identity.keyset().version) uplink.send({ kind: 'keysetRequest' })
        renewWhenDue(welcome.renew)
      },
      onDisconnected: () => undefined,
    },
    clock,
    logger,
  })
  const expiredRenewal = createExpiredRenewal({ identity, uplink, clock, logger })
  const renewWhenDue = (isAsked = false) => {
    if (isAsked || identity.renewalDue(clock()))
      uplink.send({ kind: 'renewalRequest', csrPem: identity.startRenewal() })
  }

  const startedAt = new Date(clock()).toISOString()
  const scannerCounts = () => {
    const { scanned, skipped, restarts, queued } = scanner.status()
    return {
      scanned,
      skipped: Object.values(skipped).reduce((sum, count) => sum + count, 0),
      restarts,
      queued,
    }
  }
  const statusMessage = () => {
    const stats = buffer.stats()
    return {
      kind: 'status' as const,
      sensors: [...sensors.status()],
      bufferedRows: stats.bufferedRows,
      bufferedBytes: stats.bufferedBytes,
      droppedRows: stats.droppedRows,
      scanner: scannerCounts(),
      residentBytes: process.memoryUsage.rss(),
      certificateExpires: new Date(identity.certificateExpiresAtMs()).toISOString(),
      isolation: isolation.status(),
    }
  }
  const telemetry = () => {
    const states = layers.sources(sensors.status())
    const state = scanner.status().state
    return coverageOf([
      ...states,
      { source: 'scanner', inForce: state !== 'stopped', reason: `the scanner is ${state}` },
      { source: 'agent', inForce: true, reason: 'by the agent itself' },
    ])
  }
  const report = (): StatusReport => {
    const stats = buffer.stats()
    const scannerStatus = scanner.status()
    return {
      running: true,
      pid: process.pid,
      version: AGENT_VERSION,
      agentId: identity.agentId,
      fleet: identity.fleet,
      startedAt,
      bootId,
      sensors: sensors.status(),
      telemetry: telemetry(),
      refusedMounts: layers.refusedMounts(),
      events: {
        added: stats.addedRows,
        buffered: stats.bufferedRows,
        bufferedBytes: stats.bufferedBytes,
        dropped: stats.droppedRows,
        trouble: stats.trouble?.reason ?? null,
      },
      scanner: {
        state: scannerStatus.state,
        engine: scannerStatus.engine,
        isolation: scannerStatus.isolation,
        ruleProblems: scannerStatus.ruleProblems,
        budget: scannerStatus.budget,
        ...scannerCounts(),
      },
      connection: describeConnection(gatewayUrl, uplink.state()),
      certificate: {
        expiresAt: new Date(identity.certificateExpiresAtMs()).toISOString(),
        renewal: expiredRenewal.state(),
        keysetVersion: identity.keyset().version,
      },
      interlock: describeInterlock(installedAsService, settings),
      networkIsolation: isolation.status(),
      telemetryLists: telemetryLists.inForce(),
      residentBytes: process.memoryUsage.rss(),
    }
  }

  table.load(platform.listPids())
  emit(agentStarted(AGENT_VERSION, bootId, layers.best, clock()))
  let outcome = 'the agent was told to stop'
  try {
    await runTogether(signal, [
      async function sensorLayers(stop) {
        // What the layers hand over at their end still passes through.
        const layersEnded = new AbortController()
        const passing = volume.run(layersEnded.signal)
        try {
          await sensors.run(routes.accept, stop)
        } finally {
          routes.close()
          layersEnded.abort()
          await passing
        }
      },
      async function contentScanner(stop) {
        await scanner.run(stop)
      },
      async function controllerUplink(stop) {
        inventory = await inventoryTaken
        await uplink.run(stop)
      },
      async function networkIsolation(stop) {
        await isolation.run(stop)
      },
      async function breakGlassCodes(stop) {
        await serveCodes(stateFolder, isolation.breakGlass, stop)
      },
      async function commandReceiver(stop) {
        await receiver.run(stop)
      },
      async function statusSocket(stop) {
        await serveStatus(stateFolder, report, stop)
      },
      async function housekeeping(stop) {
        await runEvery(USER_NAMES_INTERVAL_MS, stop, () => {
          userNames = platform.readUserNames()
        })
      },
      async function memory(stop) {
        await keepSmall(native.ok ? native.native.releaseMemory : null, stop)
      },
      async function renewal(stop) {
        await runEvery(RENEWAL_CHECK_MS, stop, () => renewWhenDue())
      },
      async function renewalAfterExpiry(stop) {
        await expiredRenewal.run(stop)
      },
      async function readiness(stop) {
        // A launcher waits for sensors and scanner, not for the controller: the agent works on alone.
        const until = clock() + READY_WAIT_MS
        while (!stop.aborted && clock() < until && !isReady()) await pause(50, stop)
        const inForce = sensors.status().filter((sensor) => sensor.inForce)
        serviceManager.ready(`sensors in force: ${inForce.map((sensor) => sensor.name).join(', ')}`)
        ready({ agentId: identity.agentId, pid: process.pid, sensors: inForce.map((sensor) => sensor.name) })
        await aborted(stop)
      },
    ])
  } catch (error) {
    outcome = error instanceof Error ? error.message : String(error)
    throw error
  } finally {
    emit(agentStopped(outcome, clock()))
  }

  function factsOfProcess(pid: number): ProcessFacts | null {
    const entry = table.find(pid)
    if (entry === null) return null
    return {
      executable: entry.executable,
      parentExecutable: entry.parent?.executable ?? null,
      userId: entry.userId,
    }
  }

  function isReady(): boolean {
    return scanner.status().state === 'ready' && sensors.complete()
  }
}

/** An action took hold of something: what is found again from now on was not ended by it. */
function changedTheHost(event: EventOf<'action-state'>): boolean {
  const state = event['cordon.command.state']
  const takesNothing = ['scanPath', 'collectFile', 'setTelemetryLists']
  if (takesNothing.includes(event['cordon.command.action'])) return false
  return state === 'applied' || state === 'done'
}

function openOrFail(stateFolder: string): Identity {
  const opened = openIdentity(stateFolder)
  if (!opened.ok) throw new AgentError(`${opened.error.reason}\n${opened.error.mend}`)
  return opened.identity
}

function freeBytes(folder: string): number {
  const space = statfsSync(folder)
  return space.bavail * space.bsize
}

function describeConnection(gatewayUrl: string, state: UplinkState): StatusReport['connection'] {
  const since = new Date(state.sinceMs).toISOString()
  const details = [
    `since ${since}, ${state.sentBatches} batches sent, ${state.inFlight} in flight`,
    state.lastError === null ? '' : `last error: ${state.lastError}`,
    state.nextAttemptMs === null ? '' : `next attempt ${new Date(state.nextAttemptMs).toISOString()}`,
  ]
  const detail = details.filter((each) => each !== '').join('; ')
  return { gatewayUrl, state: state.phase, detail, held: state.held }
}

function describeInterlock(installedAsService: boolean, settings: AgentSettings): string {
  if (installedAsService) return 'off: this agent runs as a service'
  const places = [settings.testRoot, settings.testCgroup && `cgroup ${settings.testCgroup}`].filter(Boolean)
  return places.length === 0
    ? 'ON: no service, and no testRoot or testCgroup is set: every kill and quarantine is refused'
    : `ON: acts only on what is in ${places.join(' and ')}`
}
