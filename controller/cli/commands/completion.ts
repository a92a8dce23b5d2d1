/** Completion for shells, from the same table that the program is made of. */
import { type Command, EXIT, type OptionSpec } from '../command.ts'

interface Shell {
  readonly name: string
  readonly example: string
  readonly script: (commands: readonly Command[]) => string
}

const SHELLS: readonly Shell[] = [
  { name: 'bash', example: 'source <(cordon completion bash)', script: bashCompletion },
  { name: 'zsh', example: 'source <(cordon completion zsh)', script: zshCompletion },
  { name: 'fish', example: 'cordon completion fish | source', script: fishCompletion },
]

export const COMPLETION_COMMANDS: readonly Command[] = SHELLS.map(({ name, example, script }) => ({
  name: `completion ${name}`,
  summary: `print completion for ${name}`,
  example,
  async run({ commands, io }) {
    io.stdout.write(script(commands))
    return EXIT.ok
  },
}))

/** Of the flags that every command has, those worth offering. */
const EVERYWHERE = ['--json', '--csv', '--output', '--help']

function verbsByNoun(commands: readonly Command[]): ReadonlyMap<string, readonly Command[]> {
  const verbs = new Map<string, Command[]>()
  for (const command of commands) {
    const [noun = '', verb] = command.name.split(' ')
    verbs.set(noun, [...(verbs.get(noun) ?? []), ...(verb === undefined ? [] : [command])])
  }
  return verbs
}

const CHANGES = ['--reason', '--incident', '--ttl', '--dry-run', '--yes', '--wait', '--key']

function flagsOf({ options = [], changes }: Command): string[] {
  return [...options.map(longFlag), ...(changes ? CHANGES : []), ...EVERYWHERE]
}

function longFlag({ flags }: OptionSpec): string {
  return /--[a-z0-9-]+/.exec(flags)?.[0] ?? ''
}

const verbOf = ({ name }: Command) => name.split(' ')[1] ?? ''

function bashCompletion(commands: readonly Command[]): string {
  const verbs = verbsByNoun(commands)
  const offer = (words: readonly string[]) => `COMPREPLY=($(compgen -W "${words.join(' ')}" -- "$word"))`
  return `_cordon() {
  local word="\${COMP_WORDS[COMP_CWORD]}" path="\${COMP_WORDS[1]} \${COMP_WORDS[2]}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    ${offer([...verbs.keys()])}
    return
  fi
  if [ "$COMP_CWORD" -eq 2 ]; then
    case "\${COMP_WORDS[1]}" in
${[...verbs].map(([noun, of]) => `      ${noun}) ${offer(of.map(verbOf))} ;;`).join('\n')}
    esac
    return
  fi
  case "$path" in
${commands
  .filter(({ name }) => name.includes(' '))
  .map((of) => `    "${of.name}") ${offer(flagsOf(of))} ;;`)
  .join('\n')}
  esac
}
complete -F _cordon cordon
`
}

/** Zsh takes bash's functions over. */
function zshCompletion(commands: readonly Command[]): string {
  return `autoload -Uz compinit bashcompinit
(( $+functions[compdef] )) || compinit
bashcompinit
${bashCompletion(commands)}`
}

function fishCompletion(commands: readonly Command[]): string {
  const word = (text: string) => `'${text.replace(/['\\]/g, '\\$&')}'`
  const lines = ['complete -c cordon -f']
  for (const [noun, of] of verbsByNoun(commands)) {
    lines.push(`complete -c cordon -n __fish_use_subcommand -a ${noun}`)
    const verbs = of.map(verbOf)
    for (const command of of) {
      const verb = verbOf(command)
      const chooses = `__fish_seen_subcommand_from ${noun}; and not __fish_seen_subcommand_from ${verbs.join(' ')}`
      lines.push(`complete -c cordon -n ${word(chooses)} -a ${verb} -d ${word(command.summary)}`)
      const chosen = `__fish_seen_subcommand_from ${noun}; and __fish_seen_subcommand_from ${verb}`
      for (const flag of new Set(flagsOf(command))) {
        lines.push(`complete -c cordon -n ${word(chosen)} -l ${flag.slice(2)}`)
      }
    }
  }
  return `${lines.join('\n')}\n`
}
