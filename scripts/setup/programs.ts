/** The three programs and their entries in the checkout. */
export const PROGRAMS = {
  'cordon-agent': 'agent/main.ts',
  'cordon-controller': 'controller/main.ts',
  cordon: 'controller/cli/cordon.ts',
} as const
export type Program = keyof typeof PROGRAMS
