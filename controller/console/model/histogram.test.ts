import { expect, test } from 'vitest'
import type { TimelineEntry } from '../api/types.ts'
import { histogramOf } from './histogram.ts'

const entry = (seconds: number, kind: TimelineEntry['kind'], untilSeconds?: number): TimelineEntry => ({
  at: new Date(seconds * 1_000).toISOString(),
  kind,
  hostName: null,
  summary: '',
  reference: null,
  until: untilSeconds === undefined ? null : new Date(untilSeconds * 1_000).toISOString(),
})

test('nothing has no histogram', () => {
  expect(histogramOf([])).toBeNull()
})

test('entries are counted where they fall, first and last included', () => {
  const found = histogramOf([entry(0, 'detection'), entry(0, 'process'), entry(96, 'note')])
  expect(found).toMatchObject({ fromMs: 0, toMs: 96_000, countMax: 2, blind: [] })
  expect(found?.bins[0]).toEqual({ count: 2, detections: 1 })
  expect(found?.bins.at(-1)).toEqual({ count: 1, detections: 0 })
})

test('a blind time is a part of the span, and one without an end goes on to the end', () => {
  const found = histogramOf([
    entry(0, 'process'),
    entry(20, 'blind', 50),
    entry(80, 'blind'),
    entry(100, 'note'),
  ])
  expect(found?.blind).toEqual([
    { from: 0.2, to: 0.5 },
    { from: 0.8, to: 1 },
  ])
})

test('one moment has a span, too', () => {
  expect(histogramOf([entry(5, 'note')])).toMatchObject({ fromMs: 5_000, toMs: 6_000 })
})
