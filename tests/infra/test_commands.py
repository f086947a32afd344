"""Commands in infra/, the README and docs/: existing steps, valid configs, absolute stores, links to existing files."""

import importlib
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from raystp.cli import commands as cli
from raystp.cli.arguments import WrongCommandLine, read_command
from raystp.config import StepConfig
from raystp.errors import ConfigError
from raystp.steps import package_of
from raystp.steps.pipeline.chain import planned_steps
from raystp.steps.pipeline.config import PipelineConfig
from tests.conftest import ROOT

Object = dict[str, Any]
HOME, CONF = "/opt/raystp", "/etc/raystp"
"""Folders of the image's code and of the pods' configs."""
STEPS = {step for step in cli.STEPS if (ROOT / "jobs" / f"{step}.py").is_file()} - {"serve"}
"""The steps that can be RayJobs: those that end; the demo is for one machine."""
OVERLAYS = ("aws", "gcp", "local")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A block of code in a page, with its language."""


def _load(step: str, config: Path | None, overrides: list[str]) -> StepConfig[Any]:
    loaded: StepConfig[Any] = importlib.import_module(f"{package_of(step)}.step").CONFIG.load(config, overrides)
    return loaded


def _wrong(words: list[str], folder: Path) -> str | None:
    """Return the error of `python jobs/STEP.py --config FILE --set KEY=VALUE`, or None; configs are in `folder`."""
    program, job, *rest = words
    job = job.removeprefix(f"{HOME}/")
    step = Path(job).stem
    if program != "python" or not (ROOT / job).is_file() or job != f"jobs/{step}.py":
        return f"{job}: no such job"
    flags, values = rest[::2], rest[1::2]
    if len(flags) != len(values) or set(flags) - {"--config", "--set"}:
        return f"{rest}: a job takes --config FILE and --set KEY=VALUE"
    configs = [value for flag, value in zip(flags, values, strict=True) if flag == "--config"]
    files = [folder / Path(config).name for config in configs]
    if any(Path(config).parent != Path(CONF) for config in configs) or not all(file.is_file() for file in files):
        return f"{configs}: not among the configs"
    overrides = [value for flag, value in zip(flags, values, strict=True) if flag == "--set"]
    try:
        config = _load(step, files[-1] if files else None, overrides)
        config.check_absolute()  # as a submitted job does, since its working directory differs
    except ConfigError as error:
        return str(error)
    return None


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, overlays: Mapping[str, list[Object]]) -> list[Object]:
    objects: list[Object] = overlays[request.param]
    return objects


@pytest.fixture
def folder(overlay: list[Object], tmp_path: Path) -> Path:
    """The overlay's configs as files; their own folder is replaced by this one."""
    (conf,) = (
        one["data"] for one in overlay if one["metadata"]["name"] == "raystp-conf" and one["kind"] == "ConfigMap"
    )
    for name, text in conf.items():
        (tmp_path / name).write_text(text.replace(CONF, str(tmp_path)))
    return tmp_path


def _jobs(overlay: list[Object]) -> dict[str, list[str]]:
    jobs = {one["metadata"]["name"]: one["spec"]["entrypoint"] for one in overlay if one["kind"] == "RayJob"}
    return {name.removeprefix("raystp-"): shlex.split(entrypoint) for name, entrypoint in jobs.items()}


def test_every_step_has_a_rayjob_of_its_name(overlay: list[Object]) -> None:
    jobs = _jobs(overlay)
    assert set(jobs) >= STEPS
    assert {step: words[1] for step, words in jobs.items()} == {step: f"{HOME}/jobs/{step}.py" for step in jobs}


def test_every_rayjob_has_a_valid_config(overlay: list[Object], folder: Path) -> None:
    wrong = {step: _wrong(words, folder) for step, words in _jobs(overlay).items() if step in STEPS}
    assert wrong == dict.fromkeys(STEPS)


def test_every_rayjob_writes_to_the_overlays_store(overlay: list[Object], folder: Path) -> None:
    (store,) = (one["data"]["store"] for one in overlay if one["metadata"]["name"] == "raystp-store" and "data" in one)
    assert "://" in store or Path(store).is_absolute()
    for step, words in _jobs(overlay).items():
        assert words[-2:] == ["--set", f"run.store={store}"]
        if step in STEPS:
            assert _load(step, folder / Path(words[3]).name, words[5::2]).run.store == store


def test_the_inputs_of_a_step_are_outputs_of_another(overlay: list[Object], folder: Path) -> None:
    """Every artifact `<step>/<name>` in a config is the output of another config."""
    configs = {path.stem: yaml.safe_load(path.read_text()) or {} for path in sorted(folder.glob("*.yaml"))}
    written = {f"{step}/{config.get('name', 'default')}" for step, config in configs.items()}
    text = yaml.safe_dump([configs[step] for step in sorted(STEPS & configs.keys())])
    read = set(re.findall(rf"(?<![\w/.])(?:{'|'.join(sorted(STEPS))})/[\w.-]+", text))
    assert {"tile/cohort", "embed/cohort", "train/cohort"} <= read <= written
    assert "ConfigMap" in {one["kind"] for one in overlay}


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("python /opt/raystp/jobs/tiles.py --config /etc/raystp/tile.yaml --set run.store=/s", "no such job"),
        ("python /opt/raystp/conf/tile.py --config /etc/raystp/tile.yaml --set run.store=/s", "no such job"),
        ("python /opt/raystp/jobs/tile.py --config /etc/raystp/tiles.yaml --set run.store=/s", "not among the configs"),
        ("python /opt/raystp/jobs/tile.py --config /etc/tile.yaml --set run.store=/s", "not among the configs"),
        ("python /opt/raystp/jobs/tile.py --conf /etc/raystp/tile.yaml --set run.store=/s", "a job takes"),
        ("python /opt/raystp/jobs/tile.py --config /etc/raystp/tile.yaml --set run.store=store", "relative"),
        ("python /opt/raystp/jobs/tile.py --config /etc/raystp/tile.yaml --set run.shop=/s", "no such field"),
        ("python /opt/raystp/jobs/tile.py --config /etc/raystp/embed.yaml --set run.store=/s", "no such field"),
    ],
)
def test_a_wrong_command_is_detected(folder: Path, command: str, word: str) -> None:
    assert word in (_wrong(shlex.split(command), folder) or "")


def test_the_configs_log_to_the_mlflow_service(
    overlay: list[Object], infra: Path, build: Callable[[Path], list[Object]]
) -> None:
    (service,) = (one for one in build(infra / "mlflow") if one["kind"] == "Service")
    server = f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    (conf,) = (
        one["data"] for one in overlay if one["metadata"]["name"] == "raystp-conf" and one["kind"] == "ConfigMap"
    )
    runs = {name: (yaml.safe_load(text) or {}).get("run", {}) for name, text in conf.items()}
    assert {run["tracking"] for run in runs.values() if "tracking" in run} == {server}


def _commands(text: str) -> list[str]:
    """Return a text's lines without comment signs; a line that ends in \\ is joined with the next."""
    joined = re.sub(r"\\\n[#\s]*", "", text)
    return [line.strip("# ").partition("  #")[0] for line in joined.splitlines()]


def _sbatch(command: str) -> str | None:
    """Return the error of an `sbatch` line, or None."""
    words = shlex.split(command)
    script = next(index for index, word in enumerate(words) if word.endswith(".sbatch"))
    if not (ROOT / words[script]).is_file():
        return f"{words[script]}: no such script"
    step, *rest = words[script + 1 :]
    if step not in STEPS or set(rest[::2]) - {"--config", "--set"} or len(rest) % 2:
        return f"{words[script + 1 :]}: not a step's command"
    stores = [value for value in rest[1::2] if value.startswith("run.store=")]
    return None if stores and stores[0].startswith(("run.store=/", "run.store=$")) else f"{rest}: no absolute store"


def _submitted(command: str, folder: Path) -> str | None:
    """Return the error of a `ray job submit` line, or None; a relative config is in the clone."""
    words = shlex.split(command)
    job = words[words.index("--") + 1 :]
    config = job[job.index("--config") + 1]
    if config.startswith(f"{CONF}/"):
        return _wrong(job, folder)
    (folder / Path(config).name).write_text((ROOT / config).read_text())
    return _wrong([word.replace(config, f"{CONF}/{Path(config).name}") for word in job], folder)


@pytest.fixture(scope="module")
def lines(texts: Mapping[str, str]) -> list[str]:
    """Every command line in infra/, the README and docs/."""
    pages = [path.read_text().replace("$PWD", str(ROOT)) for path in PAGES]  # as the shell expands it
    return [line for text in [*texts.values(), *pages] for line in _commands(text)]


def test_the_submissions_in_infra_and_the_pages_are_valid(lines: list[str], folder: Path) -> None:
    sbatch = [line for line in lines if line.startswith("sbatch ")]
    assert sbatch
    assert [wrong for wrong in map(_sbatch, sbatch) if wrong] == []
    ray = [line for line in lines if "ray job submit --address" in line]
    assert [wrong for wrong in (_submitted(line, folder) for line in ray) if wrong] == []


def test_the_files_in_commands_exist(lines: list[str]) -> None:
    kustomizations = [word for line in lines for word in re.findall(r"kubectl (?:apply|delete) -k (\S+)", line)]
    assert {"infra/mlflow", "infra/kuberay/overlays/aws"} <= set(kustomizations)
    assert all((ROOT / folder / "kustomization.yaml").is_file() for folder in kustomizations)
    paths = {word for line in lines for word in re.findall(r"(?<![\w/])infra/[\w./-]+\w", line)}
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("sbatch infra/slurm/ray.sbatch tile --config /c.yaml --set run.store=/s", "no such script"),
        ("sbatch infra/slurm/raystp.sbatch tiles --config /c.yaml --set run.store=/s", "not a step's command"),
        ("sbatch infra/slurm/raystp.sbatch tile --set run.store=store", "no absolute store"),
        ("sbatch infra/slurm/raystp.sbatch tile --config /c.yaml", "no absolute store"),
    ],
)
def test_a_wrong_sbatch_line_is_detected(command: str, word: str) -> None:
    assert word in (_sbatch(command) or "")


def _expanded(block: str) -> str:
    """Replace the variables of a block that it sets itself, as `NAME="..."` on one line or several."""
    for name, value in re.findall(r'^([A-Z]+)="([^"]*)"$', block, re.MULTILINE):
        block = re.sub(rf"\${name}\b", " ".join(value.split()), block)
    return block


def _step_commands(page: str) -> list[str]:
    """Return the `raystp` commands in a page's blocks; another variable $NAME becomes the path /NAME, $seed is 0."""
    blocks = "\n".join(_expanded(block) for language, block in FENCE.findall(page) if not language)
    found = [re.search(r"(?:^| )raystp (?P<words>[a-z]+ .*)", line) for line in _commands(blocks)]
    commands = [match["words"].replace("$PWD", str(ROOT)).replace("$seed", "0") for match in found if match]
    return [re.sub(r"\$([A-Z]+)", r"/\1", command) for command in commands]


def _named_configs(page: str, folder: Path) -> dict[str, Path]:
    """Write the page's configs, which are blocks with `# NAME.yaml` as their first line, and return name -> file."""
    files: dict[str, Path] = {}
    for _, block in FENCE.findall(page):
        if name := re.match(r"# ([\w-]+\.yaml)\n", block):
            files[name[1]] = folder / name[1]
            files[name[1]].write_text(block)
    return files


def _step_fault(command: str, named: Mapping[str, Path]) -> str | None:
    """Return the error of a command, or None; a FILE of a finished artifact is not read."""
    if "<fingerprint>" in command:
        return None
    words = shlex.split(command.partition(" > ")[0])
    if "--config" in words:
        file = words.index("--config") + 1
        words[file] = str(named.get(words[file], ROOT / words[file]))
    try:
        asked = read_command(words)
        if asked.name in cli.TOOLS or asked.action == "help":
            return None
        config = _load(asked.name, Path(asked.config) if asked.config else None, [*asked.overrides])
        if isinstance(config, PipelineConfig) and not (config.folds and config.folds.files):  # split files are read
            planned_steps(config)  # builds the config of every step
    except (ConfigError, WrongCommandLine) as error:
        return str(error)
    return None if config.run.store else "no store"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_steps_in_the_pages_have_valid_configs(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    named = _named_configs(text, tmp_path)
    faults = {command: _step_fault(command, named) for command in _step_commands(text)}
    assert {command: fault for command, fault in faults.items() if fault} == {}


def test_the_pages_have_commands_of_every_step() -> None:
    commands = [command for page in PAGES for command in _step_commands(page.read_text())]
    assert {command.split()[0] for command in commands} - {*cli.TOOLS} == {*cli.STEPS, *cli.CHORES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_the_pages_exist(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]*)(#[^)]*)?\)", page.read_text())
    assert [link for link, _ in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_in_the_pages_exist(page: Path) -> None:
    paths = re.findall(r"`((?:raystp|conf|infra|tests|jobs|docs)/[\w./-]+)`", page.read_text())
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_python_in_the_pages_compiles() -> None:
    blocks = [block for page in PAGES for language, block in FENCE.findall(page.read_text()) if language == "python"]
    assert blocks
    for block in blocks:
        compile(block, "page", "exec")


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("tiles --set slides=slides.csv", "there is no command"),
        ("tile --slide slides.csv", "did you mean --slides?"),
        ("tile --set slides=slides.csv --set side=112", "tile_um"),
        (
            "train --set spots=spots/a --set embeddings=embed/a --set split.test=[P] --set fit.step=4",
            "accumulate_batches",
        ),
        ("tune --config conf/tune/none.yaml", "no config file"),
        ("pipeline --config conf/pipeline/smoke.yaml --set tile.side=64", "tile_um"),
    ],
)
def test_a_wrong_step_in_a_page_is_detected(command: str, word: str) -> None:
    assert word in (_step_fault(command, {}) or "")
