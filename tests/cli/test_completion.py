"""Completion in a real bash: steps, flags, and the words of a flag; and what the tools print."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from raystp import cli
from raystp.cli.tools.completion import completion
from raystp.cli.tools.listing import PACKAGES
from raystp.encoders.registry import ENCODERS
from raystp.models.methods import METHODS


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "raystp.bash"
    file.write_text(completion("bash"))
    return file


def _completed(script: Path, line: str) -> list[str]:
    """Return what bash offers at the end of a line, whose words bash would split as here."""
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    code = f"""source {script}
COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
_raystp; printf '%s\\n' "${{COMPREPLY[@]}}"; complete -p raystp"""
    done = subprocess.run(["bash", "-u", "-c", code], capture_output=True, text=True, check=True)
    *found, last = done.stdout.splitlines()
    assert last == "complete -o default -F _raystp raystp"
    return [word for word in found if word]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("raystp ti", ["tile"]),
        ("raystp --v", ["--version"]),
        ("raystp tile --tile", ["--tile-um", "--tile-px"]),
        ("raystp tile --run.st", ["--run.store"]),
        ("raystp tile --dry", ["--dry-run"]),
        ("raystp tile --mask-frame ", ["auto", "level0", "bounds"]),
        ("raystp tile --mask-frame = l", ["level0"]),
        ("raystp tile --mask-frame =", ["auto", "level0", "bounds"]),
        ("raystp train --model nh", ["nh2st"]),
        ("raystp train --targets c", ["cases"]),
        ("raystp train --cases.sc", ["--cases.scale"]),
        ("raystp train --run.use-gpu t", ["true"]),
        ("raystp tile --help --stri", ["--stride"]),
        ("raystp tile --tile-um ", []),
        ("raystp predict -o ", []),
        ("raystp completion z", ["zsh"]),
        ("raystp encoders --", ["--json"]),
    ],
)
def test_bash_completes_steps_flags_and_words(script: Path, line: str, expected: list[str]) -> None:
    assert _completed(script, line) == expected


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here")
def test_zsh_reads_its_script(tmp_path: Path) -> None:
    file = tmp_path / "raystp.zsh"
    file.write_text(completion("zsh"))
    subprocess.run(["zsh", "-f", "-c", f"source {file}"], check=True)


def test_the_version_names_what_results_depend_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert {"raystp", "python", "ray", "torch", "openslide-python"} <= {*printed} <= {"raystp", "python", *PACKAGES}
    assert any(name.startswith("faiss-") for name in printed)


def test_the_methods_and_encoders_are_those_of_the_registries(capsys: pytest.CaptureFixture[str]) -> None:
    for command, names in (("methods", METHODS), ("encoders", ENCODERS)):
        assert cli.main([command, "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert [row["name"] for row in rows] == list(names)
        assert cli.main([command]) == 0
        head, *lines = capsys.readouterr().out.splitlines()
        assert head.startswith("name ")
        assert [line.split()[0] for line in lines] == list(names)
    uni = next(row for row in rows if row["name"] == "uni_v2")
    assert (uni["dim"], uni["px"], uni["um_per_px"], uni["gate"]) == (1536, 224, [0.5], True)
    assert "MahmoodLab/UNI2-h" in uni["weights"]
