/** The pages that there are, for rail, palette and keys. */
import { type LucideIcon, Server, Siren } from 'lucide-react'

export interface Page {
  readonly name: string
  readonly path: string
  readonly key: string
  readonly icon: LucideIcon
  readonly answers: string
}

export const PAGES: readonly Page[] = [
  {
    name: 'Incidents',
    path: '/incidents',
    key: 'g i',
    icon: Siren,
    answers: 'What happened, and what is open',
  },
  {
    name: 'Hosts',
    path: '/hosts',
    key: 'g h',
    icon: Server,
    answers: 'Which hosts are watched, and by what',
  },
]
