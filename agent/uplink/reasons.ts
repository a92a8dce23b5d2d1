/** Says in words for a person why there is no connection. */

const WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens at the controller’s address',
  ECONNRESET: 'the connection was reset',
  ETIMEDOUT: 'the controller’s address does not answer',
  EHOSTUNREACH: 'there is no way to the controller’s address',
  ENETUNREACH: 'there is no network',
  ENOTFOUND: 'the controller’s name is not known',
  EAI_AGAIN: 'names cannot be looked up at the moment',
  CERT_HAS_EXPIRED: 'the controller’s certificate has expired, or this host’s clock is wrong',
  CERT_NOT_YET_VALID: 'the controller’s certificate is not valid yet, or this host’s clock is wrong',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'the controller’s certificate is not of this fleet',
  SELF_SIGNED_CERT_IN_CHAIN: 'the controller’s certificate is not of this fleet',
  UNABLE_TO_GET_ISSUER_CERT: 'the controller’s certificate is not of this fleet',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'the controller’s certificate is not of this fleet',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'the controller’s certificate is not of this fleet',
  CERT_SIGNATURE_FAILURE: 'the controller’s certificate is not of this fleet',
  INVALID_PURPOSE: 'the controller’s certificate is not one of a server',
  ERR_TLS_CERT_ALTNAME_INVALID: 'the controller’s certificate is for another name',
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: 'the controller does not know who issued this agent’s certificate',
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED: 'this agent’s certificate has expired',
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_REVOKED: 'this agent’s certificate was revoked',
  ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE: 'the controller does not accept this agent’s certificate',
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: 'the controller wants a certificate and this agent has none',
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: 'the controller does not speak TLS 1.3',
}

/** The words for an error of a socket, with its own text where there are none. */
export function reasonOfError(error: unknown): string {
  if (!(error instanceof Error)) return String(error).slice(0, 512)
  const code = 'code' in error ? String(error.code) : ''
  const words = WORDS[code]
  return (words === undefined ? error.message : `${words} (${code})`).slice(0, 512)
}

/** The words for an answer that is no upgrade. */
export function reasonOfStatus(status: number): string {
  switch (status) {
    case 401:
    case 403:
      return `the controller does not let this agent in: its certificate is unknown or revoked (HTTP ${status})`
    case 404:
      return 'the address is not that of a controller (HTTP 404)'
    case 429:
    case 503:
      return `the controller is busy (HTTP ${status})`
    default:
      return `the controller answered HTTP ${status}`
  }
}

/** Milliseconds of a Retry-After header in seconds (RFC 9110, 10.2.3); 0 when there is none that is sane. */
export function retryAfterMsOf(header: string | undefined): number {
  if (header === undefined || !/^[0-9]{1,4}$/.test(header)) return 0
  return Math.min(3_600, Number(header)) * 1_000
}
