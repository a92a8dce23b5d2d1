/** A root, a server and an agent certificate, made anew for each run of the tests. */
import { generateKeyPairSync } from 'node:crypto'
import forge from 'node-forge'

export interface TestCertificates {
  readonly rootPem: string
  readonly serverName: string
  readonly server: { readonly keyPem: string; readonly certificateChainPem: string }
  readonly agent: { readonly keyPem: string; readonly certificateChainPem: string }
}

const SERVER_NAME = 'controller.test.cordon.internal'
const DAY_MS = 86_400_000

export function createTestCertificates(
  more: { readonly serverName?: string; readonly serverDays?: number } = {},
): TestCertificates {
  const root = keyPair()
  const rootSubject = [{ name: 'commonName', value: 'Test root' }]
  const rootCertificate = sign(root, root, rootSubject, rootSubject, 1, [
    { name: 'basicConstraints', cA: true, critical: true },
    { name: 'keyUsage', keyCertSign: true, critical: true },
  ])
  const leaf = (serial: number, days: number, extensions: object[]) => {
    const key = keyPair()
    const certificate = sign(
      key,
      root,
      [{ name: 'commonName', value: `leaf ${serial}` }],
      rootSubject,
      serial,
      extensions,
      days,
    )
    return { keyPem: key.pem, certificateChainPem: forge.pki.certificateToPem(certificate) }
  }
  return {
    rootPem: forge.pki.certificateToPem(rootCertificate),
    serverName: SERVER_NAME,
    server: leaf(2, more.serverDays ?? 1, [
      { name: 'extKeyUsage', serverAuth: true },
      { name: 'subjectAltName', altNames: [{ type: 2, value: more.serverName ?? SERVER_NAME }] },
    ]),
    agent: leaf(3, 1, [
      { name: 'extKeyUsage', clientAuth: true },
      { name: 'subjectAltName', altNames: [{ type: 6, value: `urn:agent:${'a'.repeat(32)}` }] },
    ]),
  }
}

interface Pair {
  readonly pem: string
  readonly privateKey: forge.pki.rsa.PrivateKey
  readonly publicKey: forge.pki.rsa.PublicKey
}

function keyPair(): Pair {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2_048 })
  const pem = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
  const key = forge.pki.privateKeyFromPem(pem)
  return { pem, privateKey: key, publicKey: forge.pki.setRsaPublicKey(key.n, key.e) }
}

function sign(
  subjectKey: Pair,
  issuerKey: Pair,
  subject: { name: string; value: string }[],
  issuer: { name: string; value: string }[],
  serial: number,
  extensions: object[],
  days = 1,
): forge.pki.Certificate {
  const certificate = forge.pki.createCertificate()
  certificate.publicKey = subjectKey.publicKey
  certificate.serialNumber = serial.toString(16).padStart(2, '0')
  certificate.validity.notBefore = new Date(Date.now() - 2 * DAY_MS)
  certificate.validity.notAfter = new Date(Date.now() + days * DAY_MS)
  certificate.setSubject(subject)
  certificate.setIssuer(issuer)
  certificate.setExtensions(extensions)
  certificate.sign(issuerKey.privateKey, forge.md.sha256.create())
  return certificate
}
