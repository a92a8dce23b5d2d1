/**
 * The first contact: a host that has nothing but a token finds the root whose hash the token carries, and only
 * then says anything. Two connections: the first looks at the certificates and sends nothing; the second is
 * verified in full against the root that fitted the pin.
 */

import { X509Certificate } from 'node:crypto'
import { request } from 'node:https'
import { connect, type DetailedPeerCertificate, type TLSSocket } from 'node:tls'
import { keyFingerprintOf, serverVerification } from '../../shared/node/tls.ts'

export interface PinnedServer {
  readonly rootPem: string
  /** The one name in the server's certificate. */
  readonly serverName: string
}

export type PinResult =
  | { readonly ok: true; readonly server: PinnedServer }
  | { readonly ok: false; readonly kind: 'unreachable' | 'pin'; readonly reason: string }

const chainLengthMax = 8
const timeoutMs = 15_000

/** Looks for the pinned root in what the server shows. `pin` is the SHA-256 of its SubjectPublicKeyInfo in hex. */
export async function findPinnedRoot(url: URL, pin: string): Promise<PinResult> {
  const shown = await fetchChain(url)
  if (typeof shown === 'string') return { ok: false, kind: 'unreachable', reason: shown }
  const root = shown.find((certificate) => keyFingerprintOf(certificate) === pin && isSelfSigned(certificate))
  if (!root) {
    const reason = 'the server does not belong to the fleet of this token: nothing was sent to it'
    return { ok: false, kind: 'pin', reason }
  }
  const name = /^DNS:(controller\.[0-9a-f]{8}\.cordon\.internal)$/.exec(shown[0]?.subjectAltName ?? '')?.[1]
  if (name === undefined) {
    return {
      ok: false,
      kind: 'pin',
      reason: 'the server shows a certificate that is not that of a controller',
    }
  }
  return { ok: true, server: { rootPem: root.toString(), serverName: name } }
}

/** The certificates that the server shows, leaf first, or why there are none. */
function fetchChain(url: URL): Promise<X509Certificate[] | string> {
  return new Promise((resolve) => {
    const socket = connect({
      host: hostOf(url),
      port: Number(url.port || 443),
      minVersion: 'TLSv1.3',
      // Nothing is believed here and nothing is sent: the certificates are looked at, and the connection ends.
      rejectUnauthorized: false,
    })
    // A deadline for the whole, because a server that sends a byte now and then is never idle.
    const deadline = setTimeout(() => end(`${url.host} does not answer`), timeoutMs)
    const end = (result: X509Certificate[] | string) => {
      clearTimeout(deadline)
      socket.destroy()
      resolve(result)
    }
    socket.once('secureConnect', () => end(chainOf(socket)))
    socket.on('error', (error) => end(`${url.host} cannot be reached: ${error.message}`))
    socket.once('close', () => end(`${url.host} closed the connection`))
  })
}

function chainOf(socket: TLSSocket): X509Certificate[] {
  const chain: X509Certificate[] = []
  let next: DetailedPeerCertificate | undefined = socket.getPeerCertificate(true)
  while (next?.raw && chain.length < chainLengthMax) {
    chain.push(new X509Certificate(next.raw))
    const issuer: DetailedPeerCertificate | undefined = next.issuerCertificate
    next = issuer === next ? undefined : issuer
  }
  return chain
}

function isSelfSigned(certificate: X509Certificate): boolean {
  return certificate.ca && certificate.verify(certificate.publicKey)
}

export type PostResult =
  | { readonly ok: true; readonly status: number; readonly body: Buffer }
  | { readonly ok: false; readonly reason: string }

/** Posts JSON to the verified server and reads an answer of at most `answerBytesMax` bytes. */
export const postPinned = (url: URL, server: PinnedServer, body: string, answerBytesMax: number) =>
  askPinned(url, server, body, answerBytesMax)

export const getPinned = (url: URL, server: PinnedServer, answerBytesMax: number) =>
  askPinned(url, server, null, answerBytesMax)

function askPinned(
  url: URL,
  server: PinnedServer,
  body: string | null,
  answerBytesMax: number,
): Promise<PostResult> {
  return new Promise((resolve) => {
    const failed = (reason: string) => resolve({ ok: false, reason })
    const outgoing = request(
      {
        ...serverVerification(server.rootPem, server.serverName),
        host: hostOf(url),
        port: Number(url.port || 443),
        path: url.pathname,
        method: body === null ? 'GET' : 'POST',
        agent: false,
        signal: AbortSignal.timeout(timeoutMs),
        headers:
          body === null
            ? {}
            : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
      },
      (response) => {
        const chunks: Buffer[] = []
        let bytes = 0
        response.on('data', (chunk: Buffer) => {
          bytes += chunk.length
          if (bytes > answerBytesMax) outgoing.destroy(new Error('the answer is too long'))
          else chunks.push(chunk)
        })
        response.on('end', () =>
          resolve({ ok: true, status: response.statusCode ?? 0, body: Buffer.concat(chunks) }),
        )
        response.on('error', (error) => failed(error.message))
      },
    )
    outgoing.on('error', (error) => failed(`${url.host}: ${error.message}`))
    outgoing.end(body ?? undefined)
  })
}

/** The host as a socket takes it: an IPv6 address without its brackets. */
function hostOf(url: URL): string {
  return url.hostname.replace(/^\[|\]$/g, '')
}
