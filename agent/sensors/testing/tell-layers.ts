/**
 * A process of its own for tests, so that rights, mounts or the addon can be taken away from it alone: prints which
 * layers can work and why not, as JSON. Given a folder, it also runs those in force, starts a program and writes a
 * file in the folder, and prints what was seen of both. Arguments: SETTING ADDON [FOLDER].
 */
import { execFile } from 'node:child_process'
import { renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { loadNative } from '../../native/addon.ts'
import { selectPlatform } from '../../platform/platform.ts'
import type { ProcessLayerName } from '../layer-names.ts'
import { createLayers } from '../layers.ts'
import type { SensorRecord } from '../records.ts'
import { type SelectedLayers, selectLayers } from '../select-layers.ts'

const deadlineMs = 15_000
const [setting = 'auto', addonPath, folder] = process.argv.slice(2)
const found = selectPlatform()
if (!found.ok) throw new Error(found.reason)

const selected = selectLayers({
  settings: {
    sensors: setting as ProcessLayerName | 'auto',
    watchPaths: folder === undefined ? [] : [folder],
  },
  native: loadNative(addonPath),
  platform: found.platform,
  ownPids: new Set(),
  ownFolders: [],
  stateFolder: folder ?? '/nonexistent',
  clock: Date.now,
  warn: () => undefined,
})
const available = Object.fromEntries(
  selected.chains.flatMap(({ layers }) => layers.map((layer) => [layer.name, layer.available])),
)
const seen = folder === undefined ? null : await observe(selected, folder)
process.stdout.write(JSON.stringify({ best: selected.best, available, ...seen }))

/** The two chains that a host cannot be without, as long as it takes them to see both. */
async function observe({ chains }: SelectedLayers, place: string) {
  const layers = createLayers(
    chains.filter(({ isOptional }) => !isOptional),
    () => undefined,
  )
  const records: SensorRecord[] = []
  const stop = new AbortController()
  const running = layers.run((batch) => records.push(...batch), stop.signal)
  const marker = `marker-${process.pid}`
  const path = join(place, marker)
  const hasSeen = () => ({
    exec: records.some((record) => record.kind === 'exec' && record.arguments.includes(marker)),
    file: records.some((record) => record.kind === 'file' && record.path === path),
  })
  const startedMs = performance.now()
  try {
    await Promise.race([running, until(layers.complete)])
    // It waits for its input, long enough for a layer that looks once a second.
    const program = execFile('/bin/cat', ['-', marker])
    writeFileSync(`${path}.new`, '')
    renameSync(`${path}.new`, path)
    await Promise.race([running, until(() => hasSeen().exec && hasSeen().file)])
    program.kill('SIGKILL')
  } finally {
    stop.abort()
    await running
  }
  return { seen: hasSeen(), inForce: layers.status().flatMap(({ name, inForce }) => (inForce ? [name] : [])) }

  async function until(condition: () => boolean): Promise<void> {
    while (!condition() && performance.now() - startedMs < deadlineMs)
      await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
