import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { loadBuiltAddon } from '../../native/testing/compile.ts'
import { readUprobeType } from '../../platform/linux/host.ts'
import type { PamLibrary } from '../logons/pam-library.ts'
import { createPamWatch } from '../logons/pam-watch.ts'
import type { SensorRecord } from '../records.ts'
import { sourceStates } from '../telemetry/source-states.ts'
import { createEbpfSensor } from './ebpf-sensor.ts'

const { errno } = constants

describe.skipIf(process.geteuid?.() !== 0)(
  'kernel programs of which a part has no place to be attached',
  () => {
    const folder = mkdtempSync(join(tmpdir(), 'cordon-parts-'))
    const stop = new AbortController()
    const records: SensorRecord[] = []
    const gone: PamLibrary = {
      path: join(folder, 'libpam.so.0'),
      identity: '1:1',
      symbols: { pam_authenticate: 64, pam_open_session: 128, pam_close_session: 192 },
    }
    const bare: PamLibrary = { path: '/bin/true', identity: '1:2', symbols: {} }
    const pam = createPamWatch({
      roots: () => [],
      clock: Date.now,
      find: () => ({ libraries: [bare, gone], refused: [] }),
    })
    const sensor = createEbpfSensor({
      native: loadBuiltAddon(),
      cgroupPath: join(folder, 'no-such-cgroup'),
      uprobeType: readUprobeType(),
    })
    let ended: Promise<void>

    beforeAll(async () => {
      sensor.watchLogons(pam)
      await new Promise<void>((resolve, reject) => {
        ended = sensor.run((batch) => records.push(...batch), stop.signal, resolve)
        ended.catch(reject)
      })
    })
    afterAll(async () => {
      stop.abort()
      await ended
      rmSync(folder, { recursive: true, force: true })
    })

    test('tell which part it is, and why', () => {
      expect(sensor.features()).toEqual({ systemCalls: 0, packets: errno.ENOENT, signals: 0 })
      const status = [{ name: 'ebpf', inForce: true, reason: '', seen: 0, lost: 0 }]
      const states = sourceStates(status, sensor.features(), pam.status())
      expect(states.find(({ source }) => source === 'ebpf-packets')).toMatchObject({
        inForce: false,
        reason: 'the kernel refuses it: no such file or directory',
      })
    })

    test('name the library of PAM that could not be probed, and one without the functions is no reason to stop', () => {
      expect(pam.status()).toEqual({
        probed: 1,
        problem: expect.stringMatching(`^${gone.path}: (perf_event_open: .*ENOENT|the kernel has no probes)`),
      })
    })

    test('tell all that the other parts see', async () => {
      const child = spawn('/bin/sh', ['-c', 'read line'], { stdio: ['pipe', 'ignore', 'ignore'] })
      child.kill('SIGTERM')
      await once(child, 'exit')
      const kinds = () =>
        records.flatMap((record) =>
          'process' in record && record.process?.pid === child.pid ? [record.kind] : [],
        )
      await expect.poll(kinds, { timeout: 10_000 }).toContain('exit')
      expect(kinds()).toContain('exec')
      // Of the system calls.
      await expect.poll(() => records.some(({ kind }) => kind === 'library'), { timeout: 10_000 }).toBe(true)
    })
  },
)
