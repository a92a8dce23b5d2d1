/** A real dbus-daemon of the test's own, and a stand-in for systemd on it. */
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, vi } from 'vitest'
import { BUS, type BusConnection, connectToBus } from '../bus-connection.ts'
import { MESSAGE_TYPES, type Message } from '../message.ts'

export const canRunBus = process.geteuid?.() === 0 && existsSync('/usr/bin/dbus-daemon')

export async function startPrivateBus() {
  const folder = mkdtempSync(join(tmpdir(), 'cordon-bus-'))
  const socketPath = join(folder, 'socket')
  writeFileSync(
    join(folder, 'bus.conf'),
    `<busconfig><type>system</type><listen>unix:path=${socketPath}</listen><auth>EXTERNAL</auth>
      <policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/>
      <allow send_type="signal"/><allow receive_sender="*"/></policy></busconfig>`,
  )
  let daemon = run()
  function run() {
    return spawn(
      '/usr/bin/dbus-daemon',
      [`--config-file=${join(folder, 'bus.conf')}`, '--nofork', '--nopidfile'],
      {
        stdio: 'ignore',
      },
    )
  }
  const ready = () => vi.waitFor(() => expect(existsSync(socketPath)).toBe(true), 10_000)
  const end = async () => {
    const gone = new Promise((resolve) => daemon.once('exit', resolve))
    daemon.kill('SIGKILL')
    await gone
    rmSync(socketPath, { force: true })
  }
  await ready()
  return {
    socketPath,
    address: `unix:path=${socketPath}`,
    async restart() {
      await end()
      daemon = run()
      await ready()
    },
    async stop() {
      await end()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** Answers every call; one for a unit whose name holds `denied` is refused, and jobs are of type `start`. */
export async function startFakeSystemd(socketPath: string): Promise<BusConnection> {
  const connection = await connectToBus({ socketPath, message: (message) => answer(message) })
  function answer(message: Message): void {
    if (message.type !== MESSAGE_TYPES.call || message.sender === null) return
    const to = { destination: message.sender, replySerial: message.serial }
    if (message.member === 'Get' && message.path === GONE_JOB_PATH) {
      const errorName = 'org.freedesktop.DBus.Error.UnknownObject'
      connection.send({ type: MESSAGE_TYPES.error, ...to, errorName, signature: 's', body: ['gone'] })
    } else if (message.member === 'GetAll') {
      const body = unitTimes(String(message.path))
      connection.send({ type: MESSAGE_TYPES.reply, ...to, signature: 'a(sv)', body: [body] })
    } else if (message.member === 'Get') {
      connection.send({ type: MESSAGE_TYPES.reply, ...to, signature: 'v', body: [['s', 'start']] })
    } else if (JSON.stringify(message.body(), bigintText).includes('denied')) {
      const errorName = 'org.freedesktop.DBus.Error.AccessDenied'
      connection.send({ type: MESSAGE_TYPES.error, ...to, errorName, signature: 's', body: ['no'] })
    } else {
      connection.send({ type: MESSAGE_TYPES.reply, ...to, signature: 'o', body: ['/job/1'] })
    }
  }
  const owned = await connection.call({
    ...BUS,
    interface: 'org.freedesktop.DBus',
    member: 'RequestName',
    signature: 'su',
    body: ['org.freedesktop.systemd1', 0],
  })
  expect(owned).toMatchObject({ ok: true, body: [1] })
  return connection
}

/** A job that is over. */
export const GONE_JOB_PATH = '/org/freedesktop/systemd1/job/99'

/** Times of a unit by what its name says happened to it just now. */
function unitTimes(path: string): [string, [string, bigint]][] {
  const nowUs = BigInt(Date.now()) * 1_000n
  const time = (name: string, value: bigint): [string, [string, bigint]] => [`${name}Timestamp`, ['t', value]]
  const old = time('InactiveEnter', 5_000_000n)
  if (path.includes('restarted'))
    return [time('ActiveExit', nowUs - 20_000n), time('InactiveExit', nowUs), old]
  if (path.includes('started')) return [time('InactiveExit', nowUs), time('ActiveEnter', nowUs), old]
  if (path.includes('stopped')) return [time('ActiveExit', nowUs), time('InactiveExit', 9_000_000n), old]
  return [old]
}

const bigintText = (_: string, value: unknown) => (typeof value === 'bigint' ? String(value) : value)
