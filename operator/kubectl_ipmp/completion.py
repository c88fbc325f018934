"""Completion: of `kubectl ipmp` by kubectl's own (kubectl_complete-ipmp), and of `kubectl-ipmp` by scripts.

kubectl asks a program named kubectl_complete-ipmp with the words so far, the last of them unfinished, and reads one
candidate a line and, last, a directive; the scripts for bash, zsh and fish ask the same.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from kubectl_ipmp.kubectl import PluginError
from kubectl_ipmp.view import look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kubectl_ipmp.display import Display
    from kubectl_ipmp.kubectl import Kubectl
    from kubectl_ipmp.view import Whole

NO_FILES, FILES = ":4", ":0"
"""ShellCompDirectiveNoFileComp and ShellCompDirectiveDefault of cobra."""

SCRIPTS = {
    "bash": """\
_kubectl_ipmp() {
    local words line
    mapfile -t words < <(kubectl-ipmp __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    COMPREPLY=()
    for line in "${words[@]}"; do
        case $line in
            :0) [ ${#words[@]} -gt 1 ] || mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}") ;;
            :*) ;;
            *) COMPREPLY+=("${line%%$'\\t'*}") ;;
        esac
    done
}
complete -F _kubectl_ipmp kubectl-ipmp
""",
    "zsh": """\
#compdef kubectl-ipmp
_kubectl_ipmp() {
    local -a lines found
    local line
    lines=("${(@f)$(kubectl-ipmp __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    for line in $lines; do
        case $line in
            :0) _files ;;
            :*) ;;
            *) found+=("${line%%$'\\t'*}:${line#*$'\\t'}") ;;
        esac
    done
    (( ${#found} )) && _describe 'kubectl-ipmp' found
}
if [[ $funcstack[1] == _kubectl-ipmp ]]; then
    _kubectl_ipmp  # zsh reads the file for the first completion, and runs it as that
else
    compdef _kubectl_ipmp kubectl-ipmp
fi
""",
    "fish": """\
function __kubectl_ipmp
    set -l words (commandline -opc) (commandline -ct)
    kubectl-ipmp __complete $words[2..-1] 2>/dev/null | string match -v ':*'
end
complete -c kubectl-ipmp -f -a '(__kubectl_ipmp)'
complete -c kubectl-ipmp -n '__fish_seen_argument -s f -l file' -F
""",
}


def script(options: argparse.Namespace, display: Display) -> int:
    """Print the script of a shell."""
    display.line(SCRIPTS[options.shell].rstrip("\n"))
    return 0


def complete(
    words: Sequence[str], parser: argparse.ArgumentParser, make: Callable[[argparse.Namespace], Kubectl]
) -> int:
    """Print what may stand in place of the last word.

    Args:
        words: after the program's name; the last is unfinished, and may be "".
        parser: of the command line.
        make: the cluster that the options so far mean.
    """
    found, directive = candidates(words or [""], parser, make)
    sys.stdout.write("".join(f"{value}\t{meaning}\n" if meaning else f"{value}\n" for value, meaning in found))
    sys.stdout.write(f"{directive}\n")
    return 0


def candidates(
    words: Sequence[str], parser: argparse.ArgumentParser, make: Callable[[argparse.Namespace], Kubectl]
) -> tuple[list[tuple[str, str]], str]:
    """Values with their meaning, and the directive."""
    *before, last = words
    commands = _commands(parser)
    command, given, waiting = _read(before, parser, commands)
    if last.startswith("-") and "=" in last and waiting is None:
        option, _, last = last.partition("=")
        waiting = _options(commands.get(command or "", parser)).get(option)
        prefix = f"{option}="
    else:
        prefix = ""
    here = commands[command] if command else parser
    if waiting is not None:
        values, directive = _values(waiting.dest, waiting, given, before, parser, make)
    elif last.startswith("-"):
        values, directive = [(name, action.help or "") for name, action in _options(here).items()], NO_FILES
    elif command is None:
        values, directive = [(name, each.description or "") for name, each in commands.items()], NO_FILES
    else:
        positional = _positional(here, len(given))
        if positional is None:
            return [], NO_FILES
        values, directive = _values(positional.dest, positional, given, before, parser, make)
    return [(prefix + value, words) for value, words in values if value.startswith(last)], directive


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to ask
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return {name: each for name, each in action.choices.items() if not name.startswith("__")}
    return {}


def _options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {name: action for action in parser._actions for name in action.option_strings}  # noqa: SLF001


def _read(
    words: Sequence[str], parser: argparse.ArgumentParser, commands: dict[str, argparse.ArgumentParser]
) -> tuple[str | None, list[str], argparse.Action | None]:
    """The command, its positional words, and the option that waits for its value."""
    command, given, waiting = None, [], None
    for word in words:
        if waiting is not None:
            waiting = None
        elif word.startswith("-"):
            action = _options(commands[command] if command else parser).get(word)
            waiting = action if action is not None and action.nargs is None and "=" not in word else None
        elif command is None and word in commands:
            command = word
        else:
            given.append(word)
    return command, given, waiting


def _positional(parser: argparse.ArgumentParser, number: int) -> argparse.Action | None:
    """The argument that the next word is; the last one may take many."""
    places = [action for action in parser._actions if not action.option_strings]  # noqa: SLF001
    if number < len(places):
        return places[number]
    return places[-1] if places and places[-1].nargs == "*" else None


def _values(
    name: str,
    action: argparse.Action,
    given: Sequence[str],
    before: Sequence[str],
    parser: argparse.ArgumentParser,
    make: Callable[[argparse.Namespace], Kubectl],
) -> tuple[list[tuple[str, str]], str]:
    if action.choices is not None:
        return [(str(each), "") for each in action.choices], NO_FILES
    if name in {"files", "file", "kubectl_kubeconfig"}:
        return [], FILES
    if name not in {"groups", "group", "node", "nodes", "interface"}:
        return [], NO_FILES
    try:
        whole = look(make(_cluster(before, parser)))
    except PluginError:
        return [], NO_FILES
    return [(value, "") for value in sorted(set(_names(name, given, whole)))], NO_FILES


def _cluster(before: Sequence[str], parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options that say which cluster is meant, among the words so far."""
    options = argparse.Namespace(**{action.dest: None for action in parser._actions})  # noqa: SLF001
    known = _options(parser)
    for word, following in zip(before, [*before[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if (action := known.get(option)) is not None and action.nargs is None:
            setattr(options, action.dest, value if equals else following)
    return options


def _names(name: str, given: Sequence[str], whole: Whole) -> Iterator[str]:
    if name in {"group", "groups"}:
        yield from whole.group_names()
    elif name in {"node", "nodes"}:
        of = [each for each in whole.nodes if not given or each.group not in whole.group_names() or each.group in given]
        yield from (each.node for each in of or whole.nodes)
    else:
        there = [each for each in whole.nodes if not given or each.node in given]
        yield from (str(member["name"]) for each in there for member in each.interfaces)
