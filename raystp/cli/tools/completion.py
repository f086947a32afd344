"""Completion for bash and zsh: steps, flags, and the words that a flag accepts; read from the config classes.

The script has all words in it, so that a press of Tab starts no Python. Print it again after an update.
"""

from raystp.cli.arguments import ACTIONS, OWN_FLAGS, SHORT_FLAGS, variants_of
from raystp.cli.commands import CHORES, COMMANDS, STEPS, config_of
from raystp.cli.fields import choices, fields_of, with_nested

SHELLS = ("bash", "zsh")

_FUNCTION = """\
_raystp() {
    local word="${COMP_WORDS[COMP_CWORD]}" flag="${COMP_WORDS[COMP_CWORD-1]}" step="${COMP_WORDS[1]}" words=""
    if [ "$word" = "=" ]; then word=""; fi
    if [ "$flag" = "=" ]; then flag="${COMP_WORDS[COMP_CWORD-2]}"; fi
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="@COMMANDS@"
    else
        case "$step $flag" in
@VALUES@
        *" --"*@SHORT@)
            case "$flag" in
            @ACTIONS@) ;;
            *) return 0 ;;
            esac
            ;;
        esac
        if [ -z "$words" ]; then
            case "$step" in
@FLAGS@
            esac
        fi
    fi
    COMPREPLY=( $(compgen -W "$words" -- "$word") )
}
complete -o default -F _raystp raystp
"""

_HEAD = {
    "bash": '# In ~/.bashrc: eval "$(raystp completion bash)"\n',
    "zsh": '# In ~/.zshrc: eval "$(raystp completion zsh)"\n'
    "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n",
}


def completion(shell: str) -> str:
    """Return the script for a shell."""
    values, flags = [], []
    for step in (*STEPS, *CHORES):
        words = _words(step)
        values += [f'        "{step} {flag}") words="{" ".join(some)}" ;;' for flag, some in words.items() if some]
        listed = [*words, *(short for short, long in SHORT_FLAGS.items() if long in words)]
        listed += [flag for flag in OWN_FLAGS if flag != "-h"]
        flags.append(f'            {step}) words="{" ".join(listed)}" ;;')
    flags.append('            methods|encoders) words="--json" ;;')
    flags.append(f'            completion) words="{" ".join(SHELLS)}" ;;')
    script = _FUNCTION.replace("@COMMANDS@", " ".join([*COMMANDS, "--help", "--version"]))
    script = script.replace("@ACTIONS@", "|".join(ACTIONS)).replace("@VALUES@", "\n".join(values))
    script = script.replace("@SHORT@", "".join(f'|*" {short}"' for short in SHORT_FLAGS))
    return _HEAD[shell] + script.replace("@FLAGS@", "\n".join(flags))


def _words(step: str) -> dict[str, list[str]]:
    """Return the flags of a step, of each kind of its work, with the words that each accepts."""
    kind = config_of(step)
    found: dict[str, list[str]] = {}
    for each in [kind.variant({}), *variants_of(step)]:
        for field in with_nested(fields_of(each, {})):
            if not field.is_part:
                known = found.setdefault(field.flag, [])
                known += [word for word in choices(field) if word not in known]
    return found
