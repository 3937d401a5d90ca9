"""Rules of an installation: the wheel alone, in an empty directory, does all that a checkout does, and writes nothing outside of it: not
where it is installed, not to the user's home.

Other packages are those of the environment that runs this.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

AT_HOME = {".prefect"}
"""What is written to a user's home is Prefect's alone: its history of flow runs, where its own commands look (PREFECT_HOME moves it)."""
MINE = "# @package _global_\ndefaults: [smoke]\nname: mine\ntrainer: {iterations: 1}\n"
SWEEP = """name: small
base: [experiment=smoke, trainer.iterations=1, trainer.eval_every=1, trainer.eval_tasks=2]
space: {algo.lam_high: {low: 0.5, high: 1.0}}
trials: 2
last: 1
sampler: {name: random, seed: 0}
"""
COMPARISON = "name: two\nbase: [experiment=smoke, trainer.iterations=1]\narms: {hae: [], none: [algo.kl_coef=0.0]}\nseeds: [0]\n"


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a user's pip builds it."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(root)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    (built,) = out.glob("hiper-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel, installed by pip."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True, timeout=300)
    made = place / "bin" / "python"
    site = Path(
        subprocess.run(
            [made, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True, capture_output=True, text=True
        ).stdout.strip()
    )
    command = [sys.executable, "-m", "pip", "--python", str(made), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files are not read: no editable hiper
    return made


def listing(folder: Path) -> Iterator[str]:
    """Everything below a folder, but for what Python itself writes."""
    for path in sorted(folder.rglob("*")):
        if "__pycache__" not in path.parts:
            yield f"{path} {path.lstat().st_size if path.is_file() else ''}"


def test_it_holds_the_package_and_the_plugin_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"hiper", "hydra_plugins"}
    assert "hiper/py.typed" in names
    assert "hiper/conf/config.yaml" in names
    assert any(name.startswith("hiper/suites/webshop/") and name.endswith(".json") for name in names)


def test_it_works_in_an_empty_directory(python: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(MINE)
    (tmp_path / "small.yaml").write_text(SWEEP)
    (tmp_path / "two.yaml").write_text(COMPARISON)
    home = tmp_path_factory.mktemp("home")
    elsewhere = ("PYTHONPATH", "HIPER_CONF", "PREFECT_HOME", "HF_HOME", "ALFWORLD_DATA")
    environment = {name: value for name, value in os.environ.items() if name not in elsewhere and not name.startswith("XDG_")}
    environment |= {"OMP_NUM_THREADS": "1", "HOME": str(home)}

    def hiper(*words: str) -> str:
        done = subprocess.run([python, "-m", "hiper", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"hiper {' '.join(words)}\n{done.stdout}{done.stderr[-3000:]}"
        return done.stdout

    installed = python.parents[1]
    before = list(listing(installed))
    assert "trained" in hiper("run", "experiment=smoke")
    assert "trained" in hiper("run", "--direct", "experiment=mine")
    assert "2 trials: 2 complete" in hiper("sweep", "--direct", "small.yaml")
    hiper("compare", "two.yaml", "--out", "two.md")
    assert "| `none` |" in (tmp_path / "two.md").read_text()
    assert (tmp_path / "conf" / "experiment" / "small_best.yaml").is_file()
    assert list(listing(installed)) == before
    assert {path.name for path in home.iterdir()} == AT_HOME
