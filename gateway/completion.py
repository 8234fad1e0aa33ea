"""The completion of this command in bash, zsh and fish: a script for each, made from the table of the command line.

    source <(dragoman completion bash)                                    in ~/.bashrc
    dragoman completion zsh > "${fpath[1]}/_dragoman"                     once
    dragoman completion fish > ~/.config/fish/completions/dragoman.fish   once

The scripts are whole: completing starts no Python.
"""

from __future__ import annotations

from dragoman.gateway.command_line import COMMANDS, Command, Option


def script(shell: str) -> str:
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


# ---------------------------------------------------------------------------------------------------------------- bash


def _bash() -> str:
    names = " ".join(each.name for each in COMMANDS)
    values = {option.name: option for command in COMMANDS for option in command.options if option.metavar}
    cases = "\n".join(_bash_value(option) for option in values.values())
    words = "\n".join(f'    {each.name}) words="{" ".join((*each.words, *_names(each)))}" ;;' for each in COMMANDS)
    return f"""\
_dragoman() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" words
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{names} --help --version" -- "$current"))
    return
  fi
  case "$previous" in
{cases}
  esac
  case "${{COMP_WORDS[1]}}" in
{words}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -F _dragoman dragoman
"""


def _bash_value(option: Option) -> str:
    if option.is_file:
        found = 'COMPREPLY=($(compgen -f -- "$current")); compopt -o filenames 2>/dev/null; return'
    elif option.words:
        found = f'COMPREPLY=($(compgen -W "{" ".join(option.words)}" -- "$current")); return'
    else:
        found = "return"
    return f"    {option.name}) {found} ;;"


# ----------------------------------------------------------------------------------------------------------------- zsh


def _zsh() -> str:
    listed = "\n".join(f"    {_quoted(f'{each.name}:{each.summary}')}" for each in COMMANDS)
    cases = "\n".join(f"    {each.name}) _arguments {' '.join(_zsh_arguments(each))} ;;" for each in COMMANDS)
    return f"""\
#compdef dragoman

_dragoman() {{
  local -a commands
  commands=(
{listed}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command="$words[2]"
  shift words
  (( CURRENT-- ))
  case "$command" in
{cases}
  esac
}}

if [ "$funcstack[1]" = "_dragoman" ]; then
  _dragoman "$@"
else
  compdef _dragoman dragoman
fi
"""


def _zsh_arguments(command: Command) -> list[str]:
    arguments = [_quoted("--help[show what it takes]")]
    if command.words:
        arguments.append(_quoted(f"1:{command.word}:({' '.join(command.words)})"))
    for option in command.options:
        told = option.help.replace("[", "(").replace("]", ")").replace(":", "\\:")
        value = ""
        if option.metavar:
            found = "_files" if option.is_file else f"({' '.join(option.words)})" if option.words else " "
            value = f":{option.metavar}:{found}"
        arguments.append(_quoted(f"{'*' if option.several else ''}{option.name}[{told}]{value}"))
    return arguments


# ---------------------------------------------------------------------------------------------------------------- fish


def _fish() -> str:
    lines = [
        "complete -c dragoman -f",
        "complete -c dragoman -n __fish_use_subcommand -l version -d 'print the version'",
    ]
    for command in COMMANDS:
        lines.append(f"complete -c dragoman -n __fish_use_subcommand -a {command.name} -d {_quoted(command.summary)}")
        seen = f"complete -c dragoman -n '__fish_seen_subcommand_from {command.name}'"
        if command.words:
            lines.append(f"{seen} -a {_quoted(' '.join(command.words))}")
        for option in command.options:
            value = ""
            if option.metavar:
                value = " -r" + (" -F" if option.is_file else "")
                value += f" -a {_quoted(' '.join(option.words))}" if option.words else ""
            lines.append(f"{seen} -l {option.name.removeprefix('--')}{value} -d {_quoted(option.help)}")
    return "\n".join(lines) + "\n"


def _names(command: Command) -> list[str]:
    return [*(each.name for each in command.options), "--help"]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
