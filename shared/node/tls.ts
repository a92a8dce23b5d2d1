/**
 * TLS between agents and controller, as both ends set it up: 1.3 alone, one explicit root, no resumption, one
 * fixed server name, and identity from the certificate alone.
 *
 * `rejectUnauthorized: true` is said in every set of options: left out, NODE_TLS_REJECT_UNAUTHORIZED=0 in the
 * environment would win.
 */
import { constants, createHash, X509Certificate } from 'node:crypto'
import type { Socket } from 'node:net'
import { type ConnectionOptions, type PeerCertificate, TLSSocket, type TlsOptions } from 'node:tls'

/** The name in the controller's certificate, whatever address it is reached at. `fleet` is 32 hex digits. */
export function serverNameOf(fleet: string): string {
  return `controller.${fleet.slice(0, 8)}.cordon.internal`
}

export interface Credentials {
  /** Private key, PKCS #8 in PEM. */
  readonly keyPem: string
  /** The certificate and what leads to the root, in PEM. */
  readonly certificateChainPem: string
}

const common = {
  minVersion: 'TLSv1.3',
  maxVersion: 'TLSv1.3',
  rejectUnauthorized: true,
  // A resumed session would carry the peer's certificate without a new proof that it holds the key.
  secureOptions: constants.SSL_OP_NO_TICKET,
} as const

/** For the gateway: an agent must show a certificate that leads to the root. */
export function agentFacingTlsOptions(credentials: Credentials, rootPem: string): TlsOptions {
  return {
    ...common,
    key: credentials.keyPem,
    cert: credentials.certificateChainPem,
    ca: [rootPem],
    requestCert: true,
  }
}

/** For the enrolment listener: the token is the proof, so no certificate is asked for. */
export function enrolmentTlsOptions(credentials: Credentials): TlsOptions {
  return { ...common, key: credentials.keyPem, cert: credentials.certificateChainPem, requestCert: false }
}

/** For an agent that dials its controller. `serverName` is checked whatever address is dialled. */
export function controllerFacingTlsOptions(
  credentials: Credentials,
  rootPem: string,
  serverName: string,
): ConnectionOptions {
  return {
    ...serverVerification(rootPem, serverName),
    key: credentials.keyPem,
    cert: credentials.certificateChainPem,
  }
}

/** The part of an agent's options that verifies the server; enrolment uses it before it has credentials. */
export function serverVerification(rootPem: string, serverName: string): ConnectionOptions {
  return {
    ...common,
    ca: [rootPem],
    servername: serverName,
    checkServerIdentity: (_dialled, certificate) => checkServerName(serverName, certificate),
  }
}

/** The certificate must carry this one name and no other. */
function checkServerName(serverName: string, certificate: PeerCertificate): Error | undefined {
  if (certificate.subjectaltname === `DNS:${serverName}`) return undefined
  return new Error(
    `the server's certificate is for ${certificate.subjectaltname ?? 'no name'}, not ${serverName}`,
  )
}

export interface PeerIdentity {
  /** 32 hex digits. */
  readonly agentId: string
  /** SHA-256 of the DER certificate, in hex. */
  readonly certificateFingerprint: string
  /** SHA-256 of the DER SubjectPublicKeyInfo, in hex. */
  readonly keyFingerprint: string
  readonly expiresAtMs: number
}

export type PeerIdentityResult =
  | { readonly ok: true; readonly identity: PeerIdentity }
  | { readonly ok: false; readonly reason: string }

/** Who is at the other end of a connection to the gateway: from its verified certificate, and nothing else. */
export function peerIdentity(socket: Socket): PeerIdentityResult {
  if (!(socket instanceof TLSSocket)) return { ok: false, reason: 'the connection is not TLS' }
  if (!socket.authorized) return { ok: false, reason: 'the certificate was not verified' }
  const certificate = socket.getPeerX509Certificate()
  if (!certificate) return { ok: false, reason: 'there is no certificate' }
  return agentIdentityOf(certificate)
}

/** Reads the identity out of a certificate; whether it can be believed is for the caller to have checked. */
export function agentIdentityOf(certificate: X509Certificate): PeerIdentityResult {
  // One name exactly: with two, different readers would pick different agents.
  const name = /^URI:urn:agent:([0-9a-f]{32})$/.exec(certificate.subjectAltName ?? '')
  const agentId = name?.[1]
  if (agentId === undefined) return { ok: false, reason: 'the certificate names no single agent' }
  return {
    ok: true,
    identity: {
      agentId,
      certificateFingerprint: createHash('sha256').update(certificate.raw).digest('hex'),
      keyFingerprint: keyFingerprintOf(certificate),
      expiresAtMs: certificate.validToDate.getTime(),
    },
  }
}

/** SHA-256 of the DER SubjectPublicKeyInfo, in hex: what an enrolment token pins of the root. */
export function keyFingerprintOf(certificate: X509Certificate): string {
  const spki = certificate.publicKey.export({ format: 'der', type: 'spki' })
  return createHash('sha256').update(spki).digest('hex')
}

/** The certificates of a PEM text, in order. Throws when one does not parse. */
export function parseCertificateChain(pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  return blocks.map((block) => new X509Certificate(block))
}
