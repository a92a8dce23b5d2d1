/** Code that somebody else put into this process by way of its environment, before it ran a line of its own. */

/** Variables that load libraries into a program: those of the dynamic linker (ld.so(8)) and those of OpenSSL. */
const LOADER_VARIABLES = ['LD_PRELOAD', 'LD_AUDIT', 'OPENSSL_CONF', 'OPENSSL_MODULES'] as const
const VALUE_CHARACTERS_MAX = 512

/** What was found, in words for a tamper event; empty when there is nothing. */
export function foreignCode(environment: Readonly<Record<string, string | undefined>>): string[] {
  return LOADER_VARIABLES.flatMap((name) => {
    const value = environment[name]?.trim()
    if (!value) return []
    return [
      `the agent was started with ${name}=${value.slice(0, VALUE_CHARACTERS_MAX)}: its code may not be its own`,
    ]
  })
}
