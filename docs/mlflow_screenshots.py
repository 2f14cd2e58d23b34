"""Pictures of MLflow's pages for docs/mlflow.md, of a store with at least two nights; needs playwright and Chromium.

python docs/mlflow_screenshots.py sqlite:///mlruns/mlflow.db docs/figures --chromium /usr/bin/chromium
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import Page, sync_playwright

PORT = 5987
SECONDS = 10  # that a page has to draw after its text: it never stops asking the server
TEXTS = {"runs": "matching runs", "model": "Metrics (", "registered": "Version 1", "compare": "Parameters"}
KIND = "workflowType=machine_learning"


def pages(uri: str, experiment: str) -> dict[str, str]:
    """The addresses of the pages, by the name of their pictures: the newest two published nights of an experiment."""
    client = MlflowClient(uri, uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None, f"there is no experiment {experiment}"
    runs = client.search_runs([found.experiment_id], f"tags.`recsys.name` = '{experiment}' and status = 'FINISHED'")
    newest, before = [run.info.run_id for run in runs][:2]
    outputs = client.get_run(newest).outputs.model_outputs
    at = f"experiments/{found.experiment_id}"
    compared = f"runs=[%22{before}%22,%22{newest}%22]&experiments=[%22{found.experiment_id}%22]"
    return {
        "runs": f"{at}/runs?{KIND}",
        "charts": f"{at}/runs?{KIND}&compareRunsMode=CHART",
        "run": f"{at}/runs/{newest}?{KIND}",
        "metrics": f"{at}/runs/{newest}/model-metrics?{KIND}",
        "system": f"{at}/runs/{newest}/system-metrics?{KIND}",
        "artifacts": f"{at}/runs/{newest}/artifacts?{KIND}",
        "compare": f"compare-runs?{compared}&{KIND}",
        "models": f"{at}/models?{KIND}",
        "model": f"{at}/models/{outputs[0].model_id}?{KIND}",
        "registered": f"models/{experiment}?{KIND}",
        "start": at,
    }


def shoot(page: Page, address: str, path: Path, height: int, text: str = "") -> None:
    """Open an address, wait for its text and write its picture with few colours, which keeps it below 200 KB."""
    page.set_viewport_size({"width": 1400, "height": height})
    if page.url == "about:blank":
        page.goto(f"http://127.0.0.1:{PORT}/#/{address}")
    else:
        page.evaluate("address => { location.hash = address }", f"#/{address}")
    if text:
        page.get_by_text(text).first.wait_for()
    page.wait_for_timeout(1_000 * SECONDS)
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").quantize(64).save(path, optimize=True)
    print(path, path.stat().st_size, page.url)


def main() -> None:
    """Serve the store, take the pictures, end the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--experiment", default="demo")
    parser.add_argument("--chromium", help="Its path; playwright's own otherwise.")
    parser.add_argument("--only", nargs="*", help="Names of pictures.")
    parser.add_argument("--height", type=int, default=850)
    given = parser.parse_args()
    command = [sys.executable, "-m", "recsys.pipelines.cli", "ui", "--uri", given.uri, "--port", str(PORT)]
    with subprocess.Popen(command) as server:
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=2)
                    break
                except (urllib.error.URLError, OSError):
                    time.sleep(1)
            with sync_playwright() as playwright:
                page = playwright.chromium.launch(executable_path=given.chromium).new_page()
                page.set_default_timeout(300_000)
                for name, address in pages(given.uri, given.experiment).items():
                    if not given.only or name in given.only:
                        shoot(page, address, given.folder / f"mlflow-{name}.png", given.height, TEXTS.get(name, ""))
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
