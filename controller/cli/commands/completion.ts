/** Completion for bash, from the same table that the program is made of. */
import { type Command, EXIT } from '../command.ts'

export const COMPLETION_COMMANDS: readonly Command[] = [
  {
    name: 'completion bash',
    summary: 'print completion for bash',
    example: 'source <(cordon completion bash)',
    async run({ commands, io }) {
      io.stdout.write(bashCompletion(commands))
      return EXIT.ok
    },
  },
]

function bashCompletion(commands: readonly Command[]): string {
  const verbs = new Map<string, string[]>()
  for (const { name } of commands) {
    const [noun = '', verb] = name.split(' ')
    verbs.set(noun, [...(verbs.get(noun) ?? []), ...(verb === undefined ? [] : [verb])])
  }
  const flags = (of: Command) =>
    [...(of.options ?? []).map(({ flags: text }) => text.split(' ')[0] ?? ''), '--json', '--help'].join(' ')
  return `_cordon() {
  local word="\${COMP_WORDS[COMP_CWORD]}" path="\${COMP_WORDS[1]} \${COMP_WORDS[2]}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${[...verbs.keys()].join(' ')}" -- "$word"))
    return
  fi
  if [ "$COMP_CWORD" -eq 2 ]; then
    case "\${COMP_WORDS[1]}" in
${[...verbs].map(([noun, of]) => `      ${noun}) COMPREPLY=($(compgen -W "${of.join(' ')}" -- "$word")) ;;`).join('\n')}
    esac
    return
  fi
  case "$path" in
${commands
  .filter(({ name }) => name.includes(' '))
  .map((of) => `    "${of.name}") COMPREPLY=($(compgen -W "${flags(of)}" -- "$word")) ;;`)
  .join('\n')}
  esac
}
complete -F _cordon cordon
`
}
