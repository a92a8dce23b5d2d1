/** The controller, joined: the one place where its rooms meet. `main.ts` is its command line. */
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import type { Logger } from '../shared/node/logger.ts'
import { aborted, runTogether } from '../shared/node/loop.ts'
import { agentFacingTlsOptions } from '../shared/node/tls.ts'
import { createApi } from './api/app.ts'
import type { Services } from './api/services.ts'
import { consoleFiles } from './api/static-files.ts'
import { createAlerts } from './audit/alerts.ts'
import { createAuditLog } from './audit/audit-log.ts'
import { createStorageHealth } from './audit/storage-health.ts'
import { createIssuingGuard } from './backup/issuing.ts'
import { openControllerAuthority, paths } from './ceremony.ts'
import type { ControllerSettings } from './config/settings.ts'
import { createConsumer } from './detect/consumer.ts'
import { followStore } from './detect/follow.ts'
import { createBreakGlassService } from './dispatch/break-glass-service.ts'
import { createDispatch } from './dispatch/dispatch.ts'
import { createKeysetService } from './dispatch/keyset-service.ts'
import { openEvidence } from './evidence/evidence.ts'
import { createGateway } from './gateway/gateway.ts'
import { createHosts } from './hosts/host-service.ts'
import { createSilenceWatch } from './hosts/silence.ts'
import { createHostStanding } from './hosts/standing.ts'
import { createContainment } from './incidents/containment.ts'
import { createFormation, forgetEndedIncidents } from './incidents/formation.ts'
import { createIncidentService } from './incidents/incident-service.ts'
import { createHistoryWatch } from './ingest/history-watch.ts'
import { createIngest } from './ingest/ingest.ts'
import { startVerifier } from './ingest/verifier.ts'
import { createOperators } from './operators/operators.ts'
import { openPkiDatabase } from './pki/database.ts'
import { createEnrolment } from './pki/enrolment.ts'
import { startEnrolmentServer } from './pki/enrolment-server.ts'
import { createEnrolmentTokens } from './pki/enrolment-tokens.ts'
import { createExpiredRenewals } from './pki/expired-renewal.ts'
import { createHolds } from './pki/holds.ts'
import { createRegistry, type PkiAlert } from './pki/registry.ts'
import { createChangeFeed } from './state/change-feed.ts'
import { openState } from './state/state.ts'
import { createTogether } from './state/together.ts'
import { openEmbeddedEventStore } from './store/events/embedded-event-store.ts'
import { eventAt } from './store/events/event-at.ts'
import { keepWithinRetention } from './store/events/retention.ts'

/** Where it can be reached, once it can. */
export interface Reachable {
  readonly apiUrl: string
  readonly gatewayUrl: string
  readonly enrolmentUrl: string
}

/** Runs until `signal` aborts. Rejects with what a person can mend: no authority yet, a port in use. */
export async function runController(
  settings: ControllerSettings,
  logger: Logger,
  signal: AbortSignal,
  ready: (reachable: Reachable) => void,
): Promise<void> {
  const nowMs = Date.now
  const files = paths(settings.stateFolder)
  const { authority, keysets } = await openControllerAuthority(settings)
  const state = openState(files.state)
  const pki = openPkiDatabase(files.pki)
  const operators = createOperators({ path: files.operators })
  const store = await openEmbeddedEventStore({ folder: files.events, logger })
  const changes = createChangeFeed()
  const { announce } = changes
  const audit = createAuditLog(state, nowMs)
  const alerts = createAlerts({ state, audit, log: logger, nowMs })
  const storage = createStorageHealth({ audit, log: logger, nowMs })

  const pkiAlert = (alert: PkiAlert) => {
    if (alert.kind === 'clonedIdentity') alerts.raise(alert.kind, alert.agentId, alert.reason)
    else audit.record('enrolment', `alert.${alert.kind}`, alert.tokenId, alert.reason)
  }
  const holds = createHolds(pki, nowMs)
  const registry = createRegistry({ database: pki, clock: nowMs, alert: pkiAlert, holds })
  const hosts = createHosts({
    state,
    certificateOf(agentId) {
      const record = registry.get(agentId)
      return (
        record && {
          expiresAt: new Date(record.certificateExpiresAtMs).toISOString(),
          keyFingerprint: record.keyFingerprint,
          revoked: record.revokedAtMs !== null,
          heldReason: record.heldReason,
        }
      )
    },
    revokeCertificate: (agentId, _by, reason) => registry.revoke(agentId, reason),
    audit,
    announce,
    nowMs,
  })
  const address = (scheme: string, port: number) => `${scheme}://${settings.agentFacingHost}:${port}`
  const issuing = createIssuingGuard({ state, alerts, log: logger })
  const enrolment = issuing.enrolment(
    createEnrolment({
      database: pki,
      authority: issuing.authority(authority),
      registry,
      tokens: createEnrolmentTokens(pki, nowMs),
      keyset: keysets,
      enrolmentUrl: address('https', settings.enrolmentPort),
      gatewayUrl: address('wss', settings.gatewayPort),
      clock: nowMs,
      alert: pkiAlert,
      enrolled: ({ certificate, inventory }) => hosts.enrolled(certificate.agentId, inventory, 'enrolment'),
    }),
  )

  const silence = createSilenceWatch({
    state,
    alerts,
    announce,
    expected: hosts.expected,
    isConnected: hosts.isConnected,
    noteStorage: storage.note,
    nowMs,
  })
  const standing = createHostStanding({
    holds,
    renewals: () => renewals,
    disconnect: (...how) => gateway.disconnect(...how),
    nameOf: hosts.nameOf,
    audit,
    alerts,
    announce,
  })
  const renewals = createExpiredRenewals({
    database: pki,
    authority: issuing.authority(authority),
    registry,
    clock: nowMs,
    asked: standing.onRenewalAsked,
  })

  /** What each connected agent said that it has. */
  const keysetVersions = new Map<string, number>()
  const keysetMessage = () => {
    const { keyset, rootSignature } = keysets.current()
    return { kind: 'keyset' as const, keyset, rootSignature }
  }
  const verifier = startVerifier(logger)
  const together = createTogether(state, logger)
  const history = createHistoryWatch({ onForked: standing.onForked, noteStorage: storage.note })
  const ingest = createIngest({
    store: history.store(store),
    verify: verifier.verify,
    onAlert: alerts.raise,
    logger,
  })
  const evidence = openEvidence(join(settings.stateFolder, 'evidence'), {
    state,
    alerts,
    announce,
    logger,
    nowMs,
    audit,
    fileBytesMax: settings.evidenceFileBytesMax,
    bytesMax: settings.evidenceBytesMax,
  })
  const gateway = createGateway({
    host: settings.gatewayAddress,
    port: settings.gatewayPort,
    tlsOptions: () => agentFacingTlsOptions(authority.serverCredentials(), authority.rootPem),
    authorise: issuing.authorise(registry.authorise),
    keysetVersion: () => keysets.current().version,
    batches: history.sink(ingest),
    files: evidence.intake,
    admit: standing.admit,
    onTwins: standing.onTwins,
    handlers: {
      onHello(agentId, hello) {
        keysetVersions.set(agentId, hello.keysetVersion)
        issuing.hello(agentId, hello, keysets.current().version)
        together(() => {
          hosts.connected(agentId, hello)
          silence.connected(agentId)
        })
      },
      onConnected(agentId) {
        // First of all: a command under a keyset that the agent does not have would be refused for good.
        if ((keysetVersions.get(agentId) ?? 0) < keysets.current().version) {
          gateway.send(agentId, keysetMessage())
        }
        dispatch.connected(agentId)
      },
      onStopping: silence.farewell,
      onDisconnected(agentId, _reason, quietMs) {
        keysetVersions.delete(agentId)
        together(() => {
          hosts.disconnected(agentId)
          silence.lost(agentId, quietMs)
        })
      },
      onStatus: (agentId, status) => together(() => hosts.status(agentId, status)),
      onRenewal(agentId, csrPem, peer) {
        const renewed = enrolment.renew(agentId, peer.certificateFingerprint, csrPem)
        if (!renewed.ok) return { kind: 'refused', reason: renewed.error.reason }
        audit.record(`agent:${agentId}`, 'certificate.renew', agentId, 'renewed at half life with a new key')
        return { kind: 'renewed', certificateChainPem: renewed.value.certificateChainPem }
      },
      onKeysetRequest: keysetMessage,
    },
    logger,
  })
  registry.onRevoked(
    (agentId) => gateway.disconnect(agentId, 'revoked', 'the certificate was revoked'),
    signal,
  )

  const containment = createContainment({ state, announce, nowMs })
  const dispatch = createDispatch({
    state,
    fleet: authority.fleet,
    controllerKey: authority.commandKey,
    keyset: keysets.keyset,
    hostOf(agentId) {
      const host = hosts.get(agentId)
      return (
        host && {
          hostName: host.hostName,
          keyFingerprint: host.keyFingerprint,
          revoked: host.state === 'revoked',
        }
      )
    },
    send: gateway.send,
    nonceOf: issuing.nonceOf(gateway.nonceOf),
    incidentActionsChanged: containment.actionChanged,
    audit,
    alerts,
    announce,
    log: logger,
    nowMs,
    randomBytes,
  })

  const consumer = createConsumer({
    state,
    tail: followStore(store, logger),
    takeFinding: createFormation({ state, announce }).take,
    applyAgentState: dispatch.applyAgentState,
    hosts,
    audit,
    alerts,
    announce,
    log: logger,
    nowMs,
  })

  const services: Services = {
    issuing,
    hosts,
    standing,
    health: storage,
    enrolment,
    incidents: createIncidentService({ state, store, audit, announce, nowMs }),
    actions: dispatch,
    evidence: evidence.service,
    breakGlass: createBreakGlassService({ state, hosts, audit }),
    events: { query: store.query, at: (cursor) => eventAt(store, cursor) },
    changes,
    audit,
    keyset: createKeysetService({
      keeper: keysets,
      broadcast: (message) => {
        for (const session of gateway.sessions()) gateway.send(session.agentId, message)
      },
      changed: dispatch.keysetChanged,
      audit,
    }),
  }
  const api = createApi({
    services,
    operators,
    publicUrl: settings.publicUrl ?? `http://localhost:${settings.apiPort}`,
    logger,
    console: consoleFiles(),
  })

  try {
    await runTogether(signal, [
      async function eventStore(stop) {
        await store.run(stop)
      },
      async function batchChecks(stop) {
        await verifier.run(stop)
      },
      async function agentGateway(stop) {
        await gateway.run(stop)
      },
      async function correlation(stop) {
        await consumer.run(stop)
      },
      async function collectedFiles(stop) {
        await evidence.intake.run(stop)
      },
      async function actionDispatch(stop) {
        await dispatch.run(stop)
      },
      async function silenceWatch(stop) {
        await silence.run(stop)
      },
      async function forgetting(stop) {
        await forgetEndedIncidents(state, nowMs, stop)
      },
      async function retention(stop) {
        await keepWithinRetention({ store, state, audit, settings, folder: files.events, nowMs }, stop)
      },
      async function listeners(stop) {
        const enrolling = await startEnrolmentServer(
          {
            host: settings.gatewayAddress,
            port: settings.enrolmentPort,
            authority,
            enrolment,
            renewals,
            logger,
            clock: nowMs,
          },
          stop,
        )
        const bound = await gateway.listening
        if (stop.aborted) return
        const listening = await api.listen({ host: settings.apiAddress, port: settings.apiPort }, stop)
        ready({
          apiUrl: listening.url,
          gatewayUrl: address('wss', bound.port),
          enrolmentUrl: address('https', enrolling.port),
        })
        await aborted(stop)
        await Promise.all([enrolling.stopped, listening.stopped])
      },
    ])
  } finally {
    together.flush()
    await verifier.close()
    await store.close()
    operators.close()
    pki.close()
    state.close()
  }
}
