"""The container's files agree with each other and with the project; what its build runs last is run here, too."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys.errors import InputError
from recsys.runs import local_folder
from recsys.settings.read import load_settings
from tests.servers import end, free_port, until

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
PARTS = ("features", "pipelines", "recsys", "container", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, each on one line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines]


def stages() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for word, rest in instructions():
        if word == "FROM":
            name = rest.split()[-1]
            found[name] = []
        found.setdefault(name, []).append((word, rest))
    return found


def test_what_the_build_copies_is_let_in() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    assert {source.split("/")[0] for source in copied} <= allowed
    assert allowed == {*PARTS, "Dockerfile"}
    assert all((ROOT / source).exists() for source in copied)


def test_nobody_in_the_container_has_rights_and_no_secret_is_in_it() -> None:
    for name in ("serve", "night"):
        chain = [*stages()["base"], *stages()[name]]
        assert [rest for word, rest in chain if word == "USER"] == ["1000:1000"]
    assert not re.search("(?i)password|token|secret", (ROOT / "Dockerfile").read_text())
    assert instructions()[-1][1].startswith('["run"')  # the last stage is the default


def test_its_libraries_are_those_of_the_constraints() -> None:
    tree = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = [rest for word, rest in instructions() if word == "ARG"]
    wanted = next(rest.split("=")[1] for rest in extras if rest.startswith("EXTRAS="))
    listed = subprocess.run(
        [sys.executable, "container/requirements.py", wanted], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert set(wanted.split(",")) <= set(tree["project"]["optional-dependencies"])
    pinned = {
        re.split("==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]
    }
    guide = (ROOT / "docs" / "how-to" / "container.md").read_text(encoding="utf-8")
    (held, lacking) = re.findall(r"the extras (.*); it lacks (.*?)\. ", guide)[0]
    assert set(re.findall(r"`(\w+)`", held)) == set(wanted.split(","))
    extras_of_users = set(tree["project"]["optional-dependencies"]) - {"dev"}
    assert set(re.findall(r"`(\w+)`", lacking)) == extras_of_users - set(wanted.split(","))
    names = {re.split(r"[<>=;\s]", line)[0].lower() for line in listed}
    assert names <= pinned and {"setuptools", "torch", "obstore", "redis"} <= names


def test_the_services_of_compose_exist_and_take_secrets_from_the_environment() -> None:
    services = COMPOSE["services"]
    assert {"database", "mlflow", "prefect", "schedule", "night", "serve"} == set(services)
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        assert service.get("build", {}).get("target") in (None, *stages())
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source.startswith((".", "$")) or source in COMPOSE["volumes"], volume
            assert not source.startswith("./") or (ROOT / source).exists()
        assert ("healthcheck" in service) == (name in ("database", "mlflow", "prefect"))
    text = (ROOT / "compose.yaml").read_text()
    for secret in ("DB_PASSWORD", "RECSYS_TOKEN"):
        uses = re.findall(rf"\$\{{{secret}[^}}]*\}}", text)
        assert uses and all(":?" in use for use in uses)  # an empty one is refused


def test_what_a_warehouse_in_a_store_keeps_here_is_on_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of releases, the records and the lock must outlive `docker run --rm`."""
    (rest,) = [rest for word, rest in stages()["base"] if word == "ENV"]
    variables = dict(one.split("=", 1) for one in shlex.split(rest))
    monkeypatch.setenv("XDG_STATE_HOME", variables["XDG_STATE_HOME"])
    assert local_folder("s3://bucket/shop").is_relative_to("/state")


@pytest.mark.parametrize("name", ["schedule", "night", "serve"])
def test_logins_of_stores_reach_the_shop_only_where_they_are_set(name: str) -> None:
    guide = (ROOT / "docs" / "how-to" / "use-an-object-store.md").read_text(encoding="utf-8")
    passed = COMPOSE["services"][name]["environment"]
    wanted = {*re.findall(r"`(AWS_\w+)`", guide), "REDIS_PASSWORD"}
    assert len(wanted) == 7
    assert {key for key, value in passed.items() if value is None} == wanted  # an empty endpoint would be an address


def test_prefect_s_pages_go_where_its_user_may_write(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings.models.server.ui import ServerUISettings

    (user,) = re.findall(r"useradd .*--create-home (\w+)", (ROOT / "Dockerfile").read_text())
    for name, value in COMPOSE["services"]["prefect"]["environment"].items():
        monkeypatch.setenv(name, value)
    assert str(ServerUISettings().static_directory).startswith(f"/home/{user}/")


def test_mlflow_s_server_starts_no_processes_for_jobs() -> None:
    assert COMPOSE["services"]["mlflow"]["environment"] == {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def commands() -> list[list[str]]:
    run = [json.loads(rest) for name in ("serve", "night") for word, rest in stages()[name] if word == "CMD"]
    return [*run, *(COMPOSE["services"][name]["command"] for name in ("night", "schedule"))]


@pytest.mark.parametrize("command", commands(), ids=lambda command: command[0])
def test_a_command_takes_the_shop_as_it_is_mounted(command: list[str], tmp_path: Path) -> None:
    """`/shop` is read only: whatever is written goes to the volume."""
    words = [word for one in command for word in (one.split("=", 1) if one.startswith("--set=") else [one])]
    overrides = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    config = tmp_path / "recsys.toml"
    config.write_text('name = "shop"\n[interactions]\nsource = "log.csv"\n[export]\npath = "exports/shop"\n')
    settings = load_settings(config, overrides)
    assert settings.warehouse == "/state/warehouse" and settings.data_root == str(tmp_path)
    assert settings.tracking.uri in ("http://mlflow:5000", "sqlite:////state/mlruns/mlflow.db")
    assert words[1] == "/shop/recsys.toml"
    with pytest.raises(InputError):
        load_settings(config, [*overrides, "state_rot=/state"])


@pytest.mark.slow
def test_the_image_s_steps_without_docker(tmp_path: Path) -> None:
    """A wheel is built and installed as in the image, a night runs from another folder, the service is healthy."""
    project, environment, shop, state = (tmp_path / name for name in ("project", "venv", "shop", "state"))
    project.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, project / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, project / part)
    venv.create(environment, with_pip=False, symlinks=True)
    inside = next((environment / "lib").glob("python*")) / "site-packages"
    (inside / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # in place of the first layer
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PREFECT_API_URL")}
    variables |= {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def run(*command: str | Path, cwd: Path = tmp_path) -> str:
        done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    (step,) = [rest for word, rest in stages()["build"] if word == "RUN" and " recsys " in rest]
    run("sh", "-c", step.replace("/opt/recsys", shlex.quote(str(environment))), cwd=project)
    python, recsys = environment / "bin" / "python", environment / "bin" / "recsys"
    assert run(python, "-c", "import recsys; print(recsys.__file__)").strip() == str(inside / "recsys" / "__init__.py")
    assert run(recsys, "--version").startswith("recsys ")

    (shop / "data").mkdir(parents=True)
    events = [f"u{user},i{(user + place) % 12},{place}" for user in range(40) for place in range(6)]
    (shop / "data" / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *events]) + "\n")
    config = shop / "recsys.toml"
    config.write_text(
        'name = "shop"\ndata_root = "data"\n[interactions]\nsource = "log.csv"\n[retrieve]\nk = 5\n'
        "[model]\ndimensions = 8\nblocks = 1\nheads = 1\nmax_length = 8\n[train]\nepochs = 1\n"
        '[gate]\nenabled = false\n[report]\nenabled = false\n[export]\npath = "exports/shop"\n'
    )
    before = {path.name for path in shop.rglob("*")}
    overrides = ["--set", f"state_root={state}"]
    summary = json.loads(run(recsys, "run", config, "--json", "--no-prefect", *overrides))
    assert summary["published"] is True and summary["candidates"]["users"] == 40
    assert {path.name for path in shop.rglob("*")} == before  # as a volume that is read only
    assert {path.name for path in state.iterdir()} == {"warehouse", "mlruns", "exports"}

    port, log = free_port(), tmp_path / "serve.log"
    (check,) = [rest for word, rest in stages()["serve"] if word == "HEALTHCHECK"]
    words: list[str] = json.loads(check.partition("CMD ")[2])
    probe = [str(python), str(project / "container" / Path(words[1]).name), words[2].replace("8000", str(port))]
    assert subprocess.run(probe, env=variables, check=False).returncode == 1  # nobody is there yet
    with log.open("w") as out:
        command = [recsys, "serve", config, "--port", str(port), *overrides]
        server = subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=out, stderr=out)
        try:
            until(lambda: subprocess.run(probe, env=variables, check=False).returncode == 0, server, log)
        finally:
            end(server)
