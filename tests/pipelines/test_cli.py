from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from typer.testing import CliRunner

from recsys import __version__
from recsys.errors import InputError, RecsysError
from recsys.pipelines import cli
from recsys.pipelines.commands import start, tools
from recsys.pipelines.terminal.console import capped
from recsys.pipelines.terminal.outcome import STOPPED, commands
from recsys.pipelines.ui import program, ui_command

CONFIG = """
name = "shop"
[interactions]
source = "log.csv"
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recsys.toml").write_text(CONFIG)
    return "recsys.toml"


def recsys(
    *arguments: str, cwd: Path, module: str = "recsys.pipelines.cli", more: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2]), **more},
        capture_output=True,
        text=True,
        check=False,
    )


# --- help ------------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    """Imports are all that could make it slow."""
    code = "import sys; from recsys.pipelines.cli import execute; execute(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    heavy = {
        "torch", "polars", "mlflow", "prefect", "faiss", "transformers", "numpy", "pydantic", "matplotlib",
        "scipy", "pyarrow", "deltalake", "sentence_transformers", "tokenizers", "fastapi", "sqlalchemy", "safetensors",
    }  # fmt: skip
    assert "typer" in loaded and not heavy & loaded


SECONDS_OF_CPU = (  # libraries and their parts that take long to import
    "torch", "torch._dynamo", "mlflow", "prefect", "transformers", "sentence_transformers", "matplotlib", "numba",
    "scipy.stats", "pandas", "sklearn", "sympy", "sqlalchemy", "fastapi",
)  # fmt: skip


@pytest.mark.parametrize(
    ("modules", "needed"),
    [
        (("orchestration.launch", "sound", "ingest", "represent", "export", "status", "releases"), []),
        (("orchestration.launch", "sound", "train", "evaluate", "refit", "retrieve"), ["torch"]),
    ],
)
def test_a_command_imports_no_more_before_its_work_than_it_needs(modules: tuple[str, ...], needed: list[str]) -> None:
    """MLflow comes with the store, after torch: torch's import looks through all that is there."""
    names = [f"recsys.pipelines.{name}" for name in modules]
    code = (
        f"import importlib, sys; [importlib.import_module(name) for name in {names!r}]; "
        f"print(*(name for name in {SECONDS_OF_CPU!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == needed


@pytest.mark.parametrize("command", sorted(commands(cli.app)))
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    result = CliRunner().invoke(cli.app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example: recsys {command}" in result.stdout
    assert "--json" in result.stdout and "--debug" in result.stdout


def test_the_version_names_what_a_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["--version"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"recsys {__version__} (Python 3.")
    assert all(f"{name} " in shown for name in ("torch", "polars", "faiss-cpu", "mlflow", "prefect"))


def test_the_module_is_the_command(tmp_path: Path) -> None:
    done = recsys("--version", cwd=tmp_path, module="recsys")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"recsys {__version__}")


def test_a_shell_completes_commands(tmp_path: Path) -> None:
    asked = {"_RECSYS_COMPLETE": "complete_bash", "COMP_WORDS": "recsys in", "COMP_CWORD": "1"}
    done = recsys(cwd=tmp_path, more=asked)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["init", "ingest"], "")


def test_the_bare_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute([]) == 0
    assert "recsys init LOG --items FILE" in capsys.readouterr().out


# --- the log ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--log-format", "json", "fetch", "nothing"],
        ["fetch", "--log-format=json", "nothing"],
        ["fetch", "nothing", "--log-format", "json"],
    ],
)
def test_the_form_of_the_log_is_said_before_or_after_the_command(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.execute(arguments) == 2
    captured = capsys.readouterr()
    begun, error = map(json.loads, captured.err.splitlines())
    assert (begun["event"], begun["step"]) == ("step begins", "fetch") and captured.out == ""
    assert error["level"] == "error" and "There is no data set 'nothing'" in error["message"]
    assert "RECSYS_LOG_FORMAT" not in os.environ


def test_the_environment_chooses_the_form(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_LOG_FORMAT", "text")
    assert cli.execute(["fetch", "nothing"]) == 2
    begun, error = capsys.readouterr().err.splitlines()
    assert begun == "fetch ..." and error.startswith("Error: There is no data set")
    monkeypatch.setenv("RECSYS_LOG_FORMAT", "xml")
    assert cli.execute(["fetch", "nothing"]) == 2 and "'xml' is not one of" in capsys.readouterr().err


def test_a_command_that_reads_answers_in_sentences(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["status", config]) == 0
    captured = capsys.readouterr()
    assert "No night of shop is recorded" in captured.out and captured.err == ""
    assert cli.execute(["status", "none.toml"]) == 2
    assert capsys.readouterr().err.startswith("Error: There is no configuration")


# --- wrong input -----------------------------------------------------------------------------------------


def failing(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, error sentence of the JSON object, stderr."""
    code = cli.execute([*arguments, "--json"])
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert list(answer) == ["error"] and captured.out.count("\n") == 1
    assert "Traceback" not in captured.err
    return code, answer["error"], captured.err


def test_a_missing_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, error, _ = failing(["run", str(tmp_path / "none.toml")], capsys)
    assert code == 2
    assert "There is no configuration" in error and "recsys init" in error


@pytest.mark.parametrize(
    "command", ["run", "ingest", "represent", "train", "evaluate", "refit", "retrieve", "refresh", "export"]
)
def test_an_unknown_key_names_the_nearest(command: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, error, _ = failing([command, config, "--set", "train.epoch=5"], capsys)
    assert code == 2
    assert "there is no setting train.epoch; did you mean train.epochs?" in error


def test_the_help_of_a_night_names_its_steps_in_their_order() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (steps,) = re.findall(r"recsys run recsys\.toml +# (.*)", readme)
    assert f"Do the night's work: {steps}." in str(start.run.__doc__)


def test_an_override_that_is_none(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, error, _ = failing(["run", config, "--set", "epochs"], capsys)
    assert code == 2 and "--set epochs is not of the form key=value" in error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["walk"], "No such command 'walk'"),
        (["run"], "Missing argument 'CONFIG'; see `recsys run --help`."),
        (["run", "x.toml", "--epochs", "3"], "No such option: --epochs"),
        (["recommend", "b", "--history", "a", "-k", "many"], "-k"),
        (["recommend", "b", "--history", "a", "-k", "0"], "-k"),
    ],
)
def test_bad_usage(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, error, _ = failing(arguments, capsys)
    assert code == 2 and expected in error


def test_the_ui_without_a_store(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, error, _ = failing(["ui"], capsys)
    assert code == 2 and "There is no MLflow store mlruns/mlflow.db" in error
    code, error, _ = failing(["ui", "--uri", "https://tracking.example"], capsys)
    assert code == 2 and "open it in a browser" in error


def test_set_moves_the_store_that_the_ui_opens(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tools, "check", lambda *_: None)
    monkeypatch.setattr(tools, "serve", lambda *_: None)
    moved = ["--set", f"tracking.uri=sqlite:///{tmp_path}/moved.db"]
    assert cli.execute(["ui", config, *moved, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["uri"] == f"sqlite:///{tmp_path}/moved.db"
    code, error, _ = failing(["ui", *moved], capsys)
    assert code == 2 and "--set changes a configuration, and none is read" in error


def test_the_ui_at_a_port_that_is_taken(config: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, error, _ = failing(["ui", "--uri", "sqlite:///mlflow.db", "--port", str(port)], capsys)
    assert code == 2 and f"Port {port} cannot be used" in error


def test_the_ui_ends_well_when_it_is_asked_to(config: str, tmp_path: Path) -> None:
    """A server that is no MLflow stands in for it: only how the command ends is looked at."""
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "__init__.py").touch()
    (tmp_path / "mlflow" / "__main__.py").write_text("print('up', flush=True)\nimport time\ntime.sleep(600)\n")
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "recsys", "ui", "--uri", "sqlite:///mlflow.db", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert "up" in (line.strip() for line in process.stdout)
        process.terminate()
        assert (process.wait(), process.stderr.read()) == (0, "")


def test_an_error_after_the_answer_adds_no_second_object(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(uri: str, port: int) -> None:
        raise RecsysError(f"MLflow cannot open {uri}.")

    monkeypatch.setattr(tools, "check", lambda *_: None)
    monkeypatch.setattr(tools, "serve", serve)
    assert cli.execute(["ui", "--uri", "postgresql://ann:hunter2@db/mlflow", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["uri"] == "postgresql://***@db/mlflow"
    assert captured.err == "Error: MLflow cannot open postgresql://***@db/mlflow.\n"


def test_no_password_is_shown(config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def night(*_: object) -> None:
        raise ConnectionError("no answer from http://ann:hunter2@127.0.0.1:9/api")

    monkeypatch.setattr(start, "_night", night)
    assert cli.execute(["run", config, "--json", "--debug"]) == 1
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err
    assert "http://***@127.0.0.1:9/api" in captured.out and "Traceback" in captured.err
    assert ui_command("postgresql://ann:hunter2@db/mlflow") == f"{program()} ui --uri 'postgresql://***@db/mlflow'"
    code, error, _ = failing(["ui", "--uri", "http://ann:hunter2@host/"], capsys)
    assert code == 2 and "hunter2" not in error


def test_no_secret_is_in_an_answer(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    secret = {"path": "s3://key:hunter2@bucket/candidates", "digests": {"https://h/log.csv?sig=hunter2": "d"}}
    for as_json in (True, False):
        from recsys.pipelines.terminal.console import Output, facts

        Output(answers=sys.stdout, json=as_json).answer(secret, lambda console: facts(console, secret))
        shown = capsys.readouterr().out
        assert "hunter2" not in shown and "s3://***@bucket/candidates" in shown


def test_prefect_stores_overrides_without_secrets() -> None:
    from recsys.pipelines.orchestration import unmasked

    given = ["tracking.uri=http://ann:hunter2@host", "train.epochs=1"]
    with unmasked.of(given) as shown:
        assert shown == ["tracking.uri=http://***@host", "train.epochs=1"]
        assert unmasked.real(shown) == given
    assert unmasked.real(shown) == shown and unmasked.real(None) == []


# --- errors and exit codes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "code", "sentence"),
    [
        (InputError("The file is empty."), 2, "The file is empty."),
        (RecsysError("The disk is full."), 1, "The disk is full."),
        (ValueError("odd\nvalue"), 1, "ValueError: odd. Run again with --debug for the traceback."),
        (SystemExit(143), 143, "Stopped from outside; the same command goes on where it was."),
        (
            OSError(28, "No space left on device", "/w/x"),
            1,
            "/w/x: No space left on device. Run again with --debug for the traceback.",
        ),
        (KeyboardInterrupt(), 130, "Interrupted; the same command goes on where it was."),
    ],
)
def test_an_error_is_one_sentence_and_one_code(
    raised: BaseException,
    code: int,
    sentence: str,
    config: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def night(*_: object) -> None:
        print("noise of a library")  # noqa: T201
        raise raised

    monkeypatch.setattr(start, "_night", night)
    assert cli.execute(["run", config]) == code
    captured = capsys.readouterr()
    assert captured.err == f"Error: {sentence}\n"
    found, error, err = failing(["run", config], capsys)
    assert (found, error) == (code, sentence)
    assert "noise of a library" in err


def test_debug_shows_the_traceback(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "WARNING")

    def night(*_: object) -> None:
        raise InputError("The file is empty.")

    monkeypatch.setattr(start, "_night", night)
    assert cli.execute(["run", config, "--debug"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_real_processes_and_their_exit_codes(tmp_path: Path) -> None:
    wrong = recsys("run", "none.toml", "--json", cwd=tmp_path)
    assert wrong.returncode == 2
    assert list(json.loads(wrong.stdout)) == ["error"] and wrong.stderr.startswith("Error: There is no")
    usage = recsys("run", cwd=tmp_path)
    assert usage.returncode == 2 and usage.stdout == ""


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "recsys", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_nothing_but_the_object_reaches_stdout(tmp_path: Path) -> None:
    code = """
import os, subprocess, sys
from recsys.pipelines import cli
from recsys.pipelines.commands import start, tools
def night(*_):
    print("python"); os.write(1, b"descriptor\\n"); subprocess.run(["echo", "child"], check=True)
    return {"published": True}
start._night = night
start.show_night = None
sys.exit(cli.execute(["run", "recsys.toml", "--json"]))
"""
    (tmp_path / "recsys.toml").write_text(CONFIG)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == '{"published": true}\n'
    assert {"python", "descriptor", "child"} <= set(done.stderr.split())


def test_the_command_shown_is_one_that_the_shell_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / ".venv" / "bin"
    installed.mkdir(parents=True)
    (installed / "recsys").write_text("#!/bin/sh\n")
    (installed / "recsys").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", str(installed / "python3"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert ui_command("sqlite:///mlruns/mlflow.db") == ".venv/bin/recsys ui"
    monkeypatch.setenv("PATH", str(installed))
    assert ui_command("sqlite:///mlruns/mlflow.db") == "recsys ui"


# --- the preview -----------------------------------------------------------------------------------------


def test_a_preview_shows_sentences_and_where_they_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import polars as pl

    from recsys.columns import INTERACTIONS, ITEMS
    from recsys.storage.warehouse import SCHEMAS, append

    config = tmp_path / "shop.toml"
    config.write_text(
        f'name = "shop"\nwarehouse = "{tmp_path}"\n[interactions]\nsource = "log.csv"\n'
        '[items]\nsource = "items.csv"\ntext = ["title"]\n[text]\nmax_tokens = 8\nattribute_words = 7\n'
    )
    log = pl.DataFrame(schema={name: dtype or pl.Int64() for name, dtype in SCHEMAS[INTERACTIONS].items()})
    append(tmp_path, INTERACTIONS, log, expected=None)
    items = pl.DataFrame({"item_id": [1, 2], "title": ["one two three four five six seven eight", "[red]Heat"]})
    append(tmp_path, ITEMS, items, expected=None)
    assert cli.execute(["represent", str(config), "--preview"]) == 0
    shown = capsys.readouterr().out
    assert (
        "one two three four ✂ beyond text.max_tokens:  five six seven ✂ ✂ beyond text.attribute_words: eight" in shown
    )
    assert "1: 11 tokens, cut" in shown and "[red]Heat" in shown
    assert cli.execute(["represent", str(config), "--preview", "1", "--json"]) == 0
    assert [item["item_id"] for item in json.loads(capsys.readouterr().out)["shown"]] == [1]
    code, error, _ = failing(["represent", str(config), "3"], capsys)
    assert code == 2 and "add --preview" in error


def test_init_with_users_writes_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, users, config = tmp_path / "log.csv", tmp_path / "users.csv", tmp_path / "shop.toml"
    rows = "".join(f"{row % 20},{row % 7},{1_700_000_000 + 60 * row}\n" for row in range(200))
    log.write_text(f"user_id,item_id,timestamp\n{rows}")
    users.write_text("user_id,gender\n" + "".join(f"{user},{'mf'[user % 2]}\n" for user in range(20)))
    arguments = ["init", str(log), "--users", str(users), "-o", str(config), "--json"]
    assert cli.execute(arguments) == 0
    assert json.loads(capsys.readouterr().out)["path"] == config.as_posix()
    text = config.read_text()
    assert 'warehouse = "warehouses/shop"' in text and "[users]" in text and "gender" in text


def test_repeated_targets_are_said_where_they_cap_the_report() -> None:
    report = {"repeated_targets": 0.28, "protocol": {"exclude_seen": True}}
    assert "28% of the test targets" in str(capped(report)) and "0.72" in str(capped(report))
    assert capped({**report, "protocol": {"exclude_seen": False}}) is None
    assert capped({**report, "repeated_targets": 0.0}) is None
    assert capped({"protocol": {}}) is None  # a report of an older night


def test_a_stop_that_comes_while_an_object_is_freed_is_not_lost() -> None:
    code = """
import os, signal, sys, time
from recsys.pipelines import cli
signal.signal(signal.SIGTERM, cli._stop)
sys.unraisablehook = cli._once_more
class Freed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(10_000):  # the handler runs here, and what it raises is dropped
            pass
Freed()
time.sleep(30)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=25, check=False).returncode == STOPPED
