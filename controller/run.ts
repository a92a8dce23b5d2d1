/** The controller, joined: the one place where its rooms meet. `main.ts` is its command line. */
import { randomBytes } from 'node:crypto'
import { compileIndicators, type IndicatorMatcher } from '../shared/ioc/matcher.ts'
import { readContent, shippedContentFolder } from '../shared/node/content.ts'
import type { Logger } from '../shared/node/logger.ts'
import { aborted, runEvery, runTogether } from '../shared/node/loop.ts'
import { agentFacingTlsOptions } from '../shared/node/tls.ts'
import { createApi } from './api/app.ts'
import type { Services } from './api/services.ts'
import { consoleFiles } from './api/static-files.ts'
import { createAlerts } from './audit/alerts.ts'
import { createAuditLog } from './audit/audit-log.ts'
import { openControllerAuthority, paths } from './ceremony.ts'
import type { ControllerSettings } from './config/settings.ts'
import { createConsumer } from './detect/consumer.ts'
import { createExaminer } from './detect/examiner.ts'
import { createDispatch } from './dispatch/dispatch.ts'
import { createKeysetService } from './dispatch/keyset-service.ts'
import { createGateway } from './gateway/gateway.ts'
import { createHosts } from './hosts/host-service.ts'
import { createContainment } from './incidents/containment.ts'
import { createFormation, forgetEndedIncidents } from './incidents/formation.ts'
import { createIncidentService } from './incidents/incident-service.ts'
import { createIngest } from './ingest/ingest.ts'
import { createOperators } from './operators/operators.ts'
import { openPkiDatabase } from './pki/database.ts'
import { createEnrolment } from './pki/enrolment.ts'
import { startEnrolmentServer } from './pki/enrolment-server.ts'
import { createEnrolmentTokens } from './pki/enrolment-tokens.ts'
import { createRegistry, type PkiAlert } from './pki/registry.ts'
import { createChangeFeed } from './state/change-feed.ts'
import { openState } from './state/state.ts'
import { openEmbeddedEventStore } from './store/events/embedded-event-store.ts'
import { eventAt } from './store/events/event-at.ts'
import { createTail } from './store/events/tail.ts'

const RETENTION_INTERVAL_MS = 3_600_000
const DAY_MS = 24 * 3_600_000

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

  const pkiAlert = (alert: PkiAlert) => {
    if (alert.kind === 'clonedIdentity') alerts.raise(alert.kind, alert.agentId, alert.reason)
    else audit.record('enrolment', `alert.${alert.kind}`, alert.tokenId, alert.reason)
  }
  const registry = createRegistry({ database: pki, clock: nowMs, alert: pkiAlert })
  const hosts = createHosts({
    state,
    certificateOf(agentId) {
      const record = registry.get(agentId)
      return (
        record && {
          expiresAt: new Date(record.certificateExpiresAtMs).toISOString(),
          keyFingerprint: record.keyFingerprint,
          revoked: record.revokedAtMs !== null,
        }
      )
    },
    revokeCertificate: (agentId, _by, reason) => registry.revoke(agentId, reason),
    audit,
    announce,
    nowMs,
  })
  const address = (scheme: string, port: number) => `${scheme}://${settings.agentFacingHost}:${port}`
  const enrolment = createEnrolment({
    database: pki,
    authority,
    registry,
    tokens: createEnrolmentTokens(pki, nowMs),
    keyset: keysets,
    enrolmentUrl: address('https', settings.enrolmentPort),
    gatewayUrl: address('wss', settings.gatewayPort),
    clock: nowMs,
    alert: pkiAlert,
    enrolled: ({ certificate, inventory }) => hosts.enrolled(certificate.agentId, inventory, 'enrolment'),
  })

  /** What each connected agent said that it has. */
  const keysetVersions = new Map<string, number>()
  const keysetMessage = () => {
    const { keyset, rootSignature } = keysets.current()
    return { kind: 'keyset' as const, keyset, rootSignature }
  }
  const ingest = createIngest({ store, onAlert: alerts.raise, logger })
  const gateway = createGateway({
    host: settings.gatewayAddress,
    port: settings.gatewayPort,
    tlsOptions: () => agentFacingTlsOptions(authority.serverCredentials(), authority.rootPem),
    authorise: registry.authorise,
    keysetVersion: () => keysets.current().version,
    batches: ingest,
    handlers: {
      onHello(agentId, hello) {
        keysetVersions.set(agentId, hello.keysetVersion)
        hosts.connected(agentId, hello)
      },
      onConnected(agentId) {
        // First of all: a command under a keyset that the agent does not have would be refused for good.
        if ((keysetVersions.get(agentId) ?? 0) < keysets.current().version) {
          gateway.send(agentId, keysetMessage())
        }
        dispatch.connected(agentId)
      },
      onDisconnected(agentId) {
        keysetVersions.delete(agentId)
        hosts.disconnected(agentId)
      },
      onStatus: (agentId, status) => hosts.status(agentId, status),
      onRenewal(agentId, csrPem, peer) {
        const renewed = enrolment.renew(agentId, peer.certificateFingerprint, csrPem)
        if (!renewed.ok) return { kind: 'refused', reason: renewed.error.reason }
        audit.record(`agent:${agentId}`, 'certificate.renew', agentId, 'renewed at half life with a new key')
        return { kind: 'renewed', certificateChainPem: renewed.value.certificateChainPem }
      },
      onKeysetRequest: keysetMessage,
    },
    onAlert: alerts.raise,
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
    nonceOf: gateway.nonceOf,
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
    tail: createTail(store),
    examine: createExaminer(createFleetMatcher(logger, nowMs)),
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
    hosts,
    enrolment,
    incidents: createIncidentService({ state, store, audit, announce, nowMs }),
    actions: dispatch,
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
      async function agentGateway(stop) {
        await gateway.run(stop)
      },
      async function correlation(stop) {
        await consumer.run(stop)
      },
      async function actionDispatch(stop) {
        await dispatch.run(stop)
      },
      async function forgetting(stop) {
        await forgetEndedIncidents(state, nowMs, stop)
      },
      async function retention(stop) {
        await runEvery(RETENTION_INTERVAL_MS, stop, async () => {
          const dropped = await store.dropBefore(nowMs() - settings.retentionDays * DAY_MS)
          if (dropped > 0) logger.info({ files: dropped }, 'event files past their retention were dropped')
        })
      },
      async function listeners(stop) {
        const enrolling = await startEnrolmentServer(
          {
            host: settings.gatewayAddress,
            port: settings.enrolmentPort,
            authority,
            enrolment,
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
    await store.close()
    operators.close()
    pki.close()
    state.close()
  }
}

/** The shipped indicators, compiled once; content that changes while the controller runs comes later. */
function createFleetMatcher(logger: Logger, nowMs: () => number): () => IndicatorMatcher {
  const content = readContent([shippedContentFolder()])
  for (const problem of content.problems) logger.warn({ problem }, 'content was left out')
  const matcher = compileIndicators(content.indicators, nowMs())
  return () => matcher
}
