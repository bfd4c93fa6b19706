/**
 * What shells are given. Each asks the program that was typed (`gateway`, or `./scripts/gateway` of a checkout) for what may stand at the
 * cursor, and is told nothing where that fails. No word of the command line is evaluated.
 */
export const SHELL_SCRIPTS = {
  bash: `# bash completion for gateway: eval "$(gateway completion bash)"
_gateway() {
  local program=\${COMP_WORDS[0]/#\\~/$HOME} kind= word
  COMPREPLY=()
  while IFS= read -r word; do
    if [ -z "$kind" ]; then kind=$word; else COMPREPLY+=("$word"); fi
  done < <("$program" __complete bash -- "\${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
  # Without an answer of its own, readline completes names of files.
  if [ "$kind" = words ]; then compopt +o default 2>/dev/null; fi
  if [ \${#COMPREPLY[@]} -eq 1 ] && [ "\${COMPREPLY[0]%=}" != "\${COMPREPLY[0]}" ]; then compopt -o nospace 2>/dev/null; fi
}
complete -o default -F _gateway gateway
`,
  zsh: `#compdef gateway
# zsh completion for gateway: source <(gateway completion zsh), after compinit
_gateway() {
  local program=\${words[1]/#\\~/$HOME} line
  local -a lines candidates
  lines=("\${(@f)$("$program" __complete zsh -- "\${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ \${lines[1]} == files ]]; then
    _files
    return
  fi
  for line in "\${(@)lines[2,-1]}"; do
    [[ -n $line ]] && candidates+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}")
  done
  _describe -V gateway candidates
}
if [[ \${funcstack[1]} == _gateway ]]; then _gateway "$@"; else compdef _gateway gateway; fi
`,
  fish: `# fish completion for gateway: gateway completion fish | source
function __gateway_complete
    set -l words (commandline -opc)
    set -l program (string replace -r '^~' $HOME -- $words[1])
    set -l lines ($program __complete fish -- $words[2..-1] (commandline -ct) 2>/dev/null)
    if test "$lines[1]" = files
        __fish_complete_path (commandline -ct)
    else
        printf '%s\\n' $lines[2..-1]
    end
end
complete -c gateway -f -a '(__gateway_complete)'
`,
} as const;

export type Shell = keyof typeof SHELL_SCRIPTS;
