"""Completion for bash as a shell function that starts no other program; zsh reads the same by its bashcompinit."""

from rlfr_vlm import __version__
from rlfr_vlm.completion.words import CommandWords, ProgramWords, Values

FUNCTION = r"""
@function@() {
    local cur=${COMP_WORDS[COMP_CWORD]} prefix= flag= flags= most=0 words= files=0 free= free_files=0 i place
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        @function@_add -W "@commands@" -- "$cur"
        return
    fi
    for ((i = COMP_CWORD - 1; i > 1; i--)); do
        case ${COMP_WORDS[i]} in --* | -[a-zA-Z]) flag=${COMP_WORDS[i]}; break ;; esac
    done
    place=$((COMP_CWORD - i))
    if [[ $cur == "=" ]]; then # bash makes words of `--name`, `=` and the value
        cur=
    elif [[ $flag != "" && ${COMP_WORDS[i + 1]} == "=" ]]; then
        place=$((place - 1))
    elif [[ $cur == --*=* ]]; then # one word in zsh
        flag=${cur%%=*} prefix=${cur%%=*}= cur=${cur#*=} place=1
    fi
    case ${COMP_WORDS[1]} in
@cases@
    *) return ;;
    esac
    if [[ $prefix == "" && $cur == -* ]]; then
        words=$flags files=0
    elif ((place > most)); then
        words=$free files=$free_files
        [[ $words == "" && $files == 0 ]] && words=$flags
    fi
    @function@_add -W "$words" -P "$prefix" -- "$cur"
    if ((files)); then
        @function@_add -f -P "$prefix" -- "$cur"
        compopt -o filenames 2>/dev/null
    fi
}
@function@_add() {
    local line
    while IFS= read -r line; do [[ $line == "" ]] || COMPREPLY+=("$line"); done < <(compgen "$@")
}
complete -F @function@ @program@
"""
ZSH_START = """\
# compinit forgets what was registered before, so it runs only where nothing has run it
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
(( $+functions[complete] )) || { autoload -Uz bashcompinit && bashcompinit }
"""


def bash_script(program: ProgramWords) -> str:
    """Return the completion of a program for bash."""
    names = " ".join([*(command.name for command in program.commands), "--help", "--version"])
    filled = {
        "@function@": f"_{program.name.replace('-', '_')}",
        "@program@": program.name,
        "@commands@": names,
        "@cases@": "\n".join(map(_case, program.commands)),
    }
    text = FUNCTION.lstrip("\n")
    for place, value in filled.items():
        text = text.replace(place, value)
    return f"# bash completion of {program.name} {__version__}, written by `{program.name} completion bash`\n{text}"


def zsh_script(program: ProgramWords) -> str:
    """Return the completion of a program for zsh, whose bashcompinit runs the function for bash."""
    head = f"# zsh completion of {program.name} {__version__}, written by `{program.name} completion zsh`\n"
    return f"{head}{ZSH_START}{bash_script(program)}"


def _case(command: CommandWords) -> str:
    """Return the case of a command: its flags, what stands without a flag, and a case for flags with values."""
    groups: dict[Values, list[str]] = {}
    for flag in command.flags:
        if flag.values.most:
            groups.setdefault(flag.values, []).extend(flag.names)
    lines = [f"    {command.name})", f'        flags="{" ".join(flag.names[0] for flag in command.flags)}"']
    free = command.positional
    if free.words or free.files:
        lines.append(f'        free="{" ".join(free.words)}" free_files={int(free.files)}')
    if groups:
        lines.append("        case $flag in")
        for values, names in groups.items():
            words = f' words="{" ".join(values.words)}"' if values.words else ""
            files = " files=1" if values.files else ""
            lines.append(f"        {' | '.join(names)}) most={values.most}{words}{files} ;;")
        lines.append("        esac")
    return "\n".join([*lines, "        ;;"])
