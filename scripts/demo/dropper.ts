/**
 * The demo's "malware": harmless, and only this. It connects to Cordon's own test indicator on loopback, drops
 * the EICAR test file into the demo's folder, and waits to be ended. It gives up by itself after two minutes.
 *
 *     node dropper.ts PORT FILE
 */
import { closeSync, openSync, writeSync } from 'node:fs'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { eicar, TEST_INDICATOR_ADDRESS } from './harmless.ts'

const [port = '', file = ''] = process.argv.slice(2)
const socket = connect({ port: Number(port), host: TEST_INDICATOR_ADDRESS })
socket.on('error', () => undefined)
await sleep(300)
const written = openSync(file, 'w', 0o600)
writeSync(written, eicar())
closeSync(written)
// Held open to read: fallback sensors find the writer by its open descriptor.
openSync(file, 'r')
await sleep(120_000)
socket.destroy()
