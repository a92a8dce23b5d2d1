import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import { EVENT_SCHEMAS } from '../events/event.ts'
import { ACTIONS, Intent, Keyset, Leaf, SIGNATURE_DOMAINS, Wrapper } from './commands.ts'
import {
  AGENT_MESSAGES,
  BatchHeader,
  CONTROLLER_MESSAGES,
  EnrolmentRequest,
  EnrolmentResponse,
  ExpiredRenewalAnswer,
  ExpiredRenewalNonce,
  ExpiredRenewalRequest,
  FileChunkHeader,
} from './messages.ts'
import { PROTOCOL_HISTORY, PROTOCOL_VERSION } from './version.ts'

/** What each version looked like on the wire: SHA-256 over every schema that an agent and a controller share. */
const FINGERPRINTS: Readonly<Record<number, string>> = {
  1: '2e5d6a622b914a3744077db5b987c8b7ef4e3b22b8d6d9459178783dab8eeb29',
}

function schemaFingerprint(): string {
  const contract = [
    AGENT_MESSAGES,
    CONTROLLER_MESSAGES,
    BatchHeader,
    FileChunkHeader,
    EnrolmentRequest,
    EnrolmentResponse,
    ExpiredRenewalNonce,
    ExpiredRenewalRequest,
    ExpiredRenewalAnswer,
    EVENT_SCHEMAS,
    ACTIONS,
    Intent,
    Leaf,
    Wrapper,
    Keyset,
    SIGNATURE_DOMAINS,
  ]
  return createHash('sha256').update(JSON.stringify(contract)).digest('hex')
}

test('the schemas, the protocol version and its history move together', () => {
  const fingerprint = schemaFingerprint()
  expect(
    FINGERPRINTS[PROTOCOL_VERSION],
    `The wire schemas are not those recorded for protocol version ${PROTOCOL_VERSION}. ` +
      'If a released agent or controller speaks this version, raise PROTOCOL_VERSION in version.ts and add a dated ' +
      'entry to PROTOCOL_HISTORY; if none does, update the fingerprint alone. ' +
      `Record in FINGERPRINTS of this test: '${fingerprint}'`,
  ).toBe(fingerprint)
})

test('the newest entry of the history is the version in force, and versions rise by one', () => {
  expect(PROTOCOL_HISTORY.at(-1)?.version).toBe(PROTOCOL_VERSION)
  expect(PROTOCOL_HISTORY.map((entry) => entry.version)).toEqual(
    PROTOCOL_HISTORY.map((_, index) => index + 1),
  )
})

test('every version of the history has a fingerprint of its own', () => {
  const recorded = PROTOCOL_HISTORY.map((entry) => FINGERPRINTS[entry.version])
  expect(recorded.every((fingerprint) => /^[0-9a-f]{64}$/.test(fingerprint ?? ''))).toBe(true)
  expect(new Set(recorded).size).toBe(recorded.length)
})
