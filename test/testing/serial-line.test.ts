import { PassThrough } from 'node:stream'
import { expect, test } from 'vitest'
import { createSerialLine } from './serial-line.ts'

test('a line and the bytes behind it arrive whole, however the stream cuts them', async () => {
  const stream = new PassThrough()
  const line = createSerialLine(stream, () => 'nothing more is known')
  const bytes = Buffer.from('DONE 0 5 0\nab\ncd\xffnext\n', 'latin1')
  for (const byte of bytes) stream.write(Buffer.from([byte]))
  expect(await line.takeLine(1_000)).toBe('DONE 0 5 0')
  expect((await line.takeBytes(6, 1_000)).toString('latin1')).toBe('ab\ncd\xff')
  expect((await line.takeBytes(0, 1_000)).length).toBe(0)
  expect(await line.takeLine(1_000)).toBe('next')
})

test('what does not come is an error that tells what is known, and loses nothing', async () => {
  const stream = new PassThrough()
  const line = createSerialLine(stream, () => 'its console: Kernel panic')
  stream.write('half')
  await expect(line.takeLine(20)).rejects.toThrow('no answer in 20 ms; its console: Kernel panic')
  stream.write(' a line\n')
  expect(await line.takeLine(1_000)).toBe('half a line')
  const waiting = line.takeLine(10_000)
  stream.destroy()
  await expect(waiting).rejects.toThrow('the guest is gone; its console: Kernel panic')
})
