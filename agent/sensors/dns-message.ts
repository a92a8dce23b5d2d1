/**
 * DNS messages (RFC 1035, section 4): the question and the answers, as far as they are there. The bytes are a
 * stranger's: every offset is checked, names are bounded, and compression may only point backwards.
 */
import { addressText } from './address-text.ts'

export interface DnsMessage {
  readonly id: number
  readonly isAnswer: boolean
  /** Such as NOERROR or NXDOMAIN. */
  readonly responseCode: string
  readonly question: { readonly name: string; readonly type: string }
  readonly answers: readonly DnsAnswer[]
}

export interface DnsAnswer {
  readonly type: string
  readonly data: string
  /** Of A and AAAA. */
  readonly address: string | null
}

const ADDRESS_FAMILY_IPV4 = 2
const ADDRESS_FAMILY_IPV6 = 10
const headerBytes = 12
const labelBytesMax = 63
const nameCharactersMax = 512
const pointersMax = 32
const answersMax = 16
const dataCharactersMax = 400
const classInternet = 1

const types: Readonly<Record<number, string>> = {
  1: 'A',
  2: 'NS',
  5: 'CNAME',
  6: 'SOA',
  12: 'PTR',
  13: 'HINFO',
  15: 'MX',
  16: 'TXT',
  28: 'AAAA',
  33: 'SRV',
  35: 'NAPTR',
  41: 'OPT',
  43: 'DS',
  46: 'RRSIG',
  47: 'NSEC',
  48: 'DNSKEY',
  52: 'TLSA',
  64: 'SVCB',
  65: 'HTTPS',
  252: 'AXFR',
  255: 'ANY',
}
const responseCodes = ['NOERROR', 'FORMERR', 'SERVFAIL', 'NXDOMAIN', 'NOTIMP', 'REFUSED'] as const

const typeName = (type: number) => types[type] ?? `TYPE${type}`

/** Null when the bytes are no DNS message with a question. What is cut off of the answers is left out. */
export function parseDnsMessage(message: Uint8Array): DnsMessage | null {
  const bytes = Buffer.from(message.buffer, message.byteOffset, message.byteLength)
  if (bytes.length < headerBytes) return null
  const flags = bytes.readUInt16BE(2)
  const questionCount = bytes.readUInt16BE(4)
  const answerCount = bytes.readUInt16BE(6)
  if (questionCount !== 1) return null
  const question = readName(bytes, headerBytes)
  if (question === null || question.end + 4 > bytes.length) return null
  const code = flags & 0xf
  return {
    id: bytes.readUInt16BE(0),
    isAnswer: (flags & 0x8000) !== 0,
    responseCode: responseCodes[code] ?? `RCODE${code}`,
    question: { name: question.name, type: typeName(bytes.readUInt16BE(question.end)) },
    answers: readAnswers(bytes, question.end + 4, Math.min(answerCount, answersMax)),
  }
}

interface ReadName {
  readonly name: string
  /** Where what follows the name begins. */
  readonly end: number
}

function readName(bytes: Buffer, start: number): ReadName | null {
  const labels: string[] = []
  let offset = start
  let end = -1
  let pointers = 0
  let characters = 0
  for (;;) {
    const length = bytes[offset]
    if (length === undefined) return null
    if ((length & 0xc0) === 0xc0) {
      const low = bytes[offset + 1]
      if (low === undefined || ++pointers > pointersMax) return null
      if (end < 0) end = offset + 2
      const aim = ((length & 0x3f) << 8) | low
      if (aim >= offset) return null
      offset = aim
      continue
    }
    if (length > labelBytesMax) return null
    if (length === 0) break
    if (offset + 1 + length > bytes.length) return null
    characters += length + 1
    if (characters > nameCharactersMax) return null
    labels.push(labelText(bytes.subarray(offset + 1, offset + 1 + length)))
    offset += 1 + length
  }
  const name = labels.length === 0 ? '.' : labels.join('.')
  return { name: name.slice(0, nameCharactersMax), end: end < 0 ? offset + 1 : end }
}

/** As in zone files (RFC 1035, 5.1): a byte that is no plain character is written as \DDD. */
function labelText(label: Buffer): string {
  const text = label.toString('latin1')
  if (/^[\w-]+$/.test(text)) return text.toLowerCase()
  return text.replace(/[^\w-]/g, (one) => `\\${String(one.charCodeAt(0)).padStart(3, '0')}`).toLowerCase()
}

function readAnswers(bytes: Buffer, start: number, count: number): DnsAnswer[] {
  const answers: DnsAnswer[] = []
  let offset = start
  for (let index = 0; index < count; index += 1) {
    const owner = readName(bytes, offset)
    if (owner === null || owner.end + 10 > bytes.length) break
    const type = bytes.readUInt16BE(owner.end)
    const dataStart = owner.end + 10
    const dataEnd = dataStart + bytes.readUInt16BE(owner.end + 8)
    if (dataEnd > bytes.length) break
    if (bytes.readUInt16BE(owner.end + 2) === classInternet)
      answers.push(readData(bytes, type, dataStart, dataEnd))
    offset = dataEnd
  }
  return answers
}

function readData(bytes: Buffer, type: number, start: number, end: number): DnsAnswer {
  const name = typeName(type)
  const data = bytes.subarray(start, end)
  if (name === 'A' && data.length === 4) {
    const address = addressText(ADDRESS_FAMILY_IPV4, data)
    return { type: name, data: address, address }
  }
  if (name === 'AAAA' && data.length === 16) {
    const address = addressText(ADDRESS_FAMILY_IPV6, data)
    return { type: name, data: address, address }
  }
  if (name === 'CNAME' || name === 'NS' || name === 'PTR') {
    const target = readName(bytes, start)
    if (target !== null) return { type: name, data: target.name, address: null }
  }
  if (name === 'TXT') return { type: name, data: texts(data).slice(0, dataCharactersMax), address: null }
  return { type: name, data: data.toString('hex').slice(0, dataCharactersMax), address: null }
}

function texts(data: Buffer): string {
  const parts: string[] = []
  for (let offset = 0; offset < data.length; ) {
    const length = data[offset] ?? 0
    parts.push(data.toString('utf8', offset + 1, Math.min(offset + 1 + length, data.length)))
    offset += 1 + length
  }
  return parts.join('')
}
