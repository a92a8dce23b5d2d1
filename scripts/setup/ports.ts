/** Free ports: those used before when they are still free, else new ones. */
import { createServer } from 'node:net'

/** A free port of an address; the preferred one when nobody has it. */
export async function findPort(preferred: number | undefined, address: string): Promise<number> {
  return (
    (preferred ? await tryPort(preferred, address) : null) ?? (await tryPort(0, address)) ?? fail(address)
  )
}

function tryPort(port: number, address: string): Promise<number | null> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(null))
    server.listen({ port, host: address, exclusive: true }, () => {
      const bound = server.address()
      server.close(() => resolve(typeof bound === 'object' && bound ? bound.port : null))
    })
  })
}

function fail(address: string): never {
  throw new Error(`no free port on ${address}`)
}
