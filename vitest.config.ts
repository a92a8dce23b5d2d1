import { join } from 'node:path'
import { defineConfig } from 'vitest/config'

// Pipeline tests start real programs, so files run two at a time on small machines and waits are generous.
// biome-ignore lint/style/noDefaultExport: vitest reads the default export of its configuration.
export default defineConfig({
  test: {
    include: ['{agent,controller,shared,scripts,test}/**/*.test.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Tests start the programs some hundred times: what Node compiled once is not compiled again.
    env: { NODE_COMPILE_CACHE: join(import.meta.dirname, 'build', 'compile-cache') },
  },
})
