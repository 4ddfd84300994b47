"""The whole line on the data that ships: `make demo`, or `python datasets/demo/demo.py --out demo-out`.

Raw outputs -> store -> validation -> two NequIP models from two YAML files that
differ only in the Hessian lines -> evaluation on held-out reactions -> HTML page.
Each step runs the command a user would type; the output of the long ones is in
a log file. Steps that are done are not done again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from tqdm import tqdm

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCRIPTS = Path(sysconfig.get_path("scripts"))
ARMS = {"E-F": "demo_energy_forces", "E-F-H": "demo_energy_forces_hessians"}


def shown(path: Path) -> str:
    """A path as the user would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def run(arguments: list[str | Path], *, quiet_to: Path | None = None) -> None:
    """Print a command and run it; end the demo with its message where it fails.

    Args:
        arguments: command and arguments
        quiet_to: log file for its output; default: the terminal
    """
    words = [shown(a) if isinstance(a, Path) else a for a in arguments]
    words[0] = Path(words[0]).name
    print("$", " ".join(f"'{w}'" if " " in w else w for w in words), flush=True)
    if quiet_to is None:
        status = subprocess.run(list(map(str, arguments)), check=False).returncode
    else:
        status = _follow(arguments, quiet_to)
    if status:
        where = f"; its output is in {shown(quiet_to)}" if quiet_to else ""
        sys.exit(f"demo: the command ended with status {status}{where}")


def _follow(arguments: list[str | Path], log: Path) -> int:
    """Run a training with its output in a log file and a progress bar over its epochs."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink, tqdm(unit="epoch", leave=True) as bar:
        process = subprocess.Popen(list(map(str, arguments)), stdout=sink, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(0.5)
                _advance(bar, log)
            _advance(bar, log)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            sys.exit("demo: interrupted; the same command goes on with the steps that are left")
    return process.returncode


def _advance(bar: tqdm[None], log: Path) -> None:
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 20000, 0))
        tail = file.read().decode(errors="replace")
    total = re.findall(r"max_epochs=(\d+)` reached", tail)
    epochs = re.findall(r"Epoch (\d+):", tail)
    done = int(total[-1]) if total else int(epochs[-1]) if epochs else 0
    bar.update(done - bar.n)


def train(arm: str, store: Path, out: Path, overrides: list[str]) -> Path:
    """Train one model, or take the finished one of an earlier demo with the same data and settings."""
    folder = out / arm
    config = ROOT / "configs" / f"{ARMS[arm]}.yaml"
    digest = hashlib.sha256(config.read_bytes() + json.dumps(overrides).encode())
    for file in sorted(store.rglob("*")):
        if file.is_file() and file.name != "zarr.json":
            digest.update(file.read_bytes())
    finished = folder / "finished"
    if finished.is_file() and finished.read_text() == digest.hexdigest():
        print(f"{arm}: trained already, in {shown(folder)}")
        return folder / "last.ckpt"
    command = [SCRIPTS / "nequip-train", "-cp", config.parent, "-cn", config.stem, f"store={store}"]
    run([*command, f"hydra.run.dir={folder}", *overrides], quiet_to=out / f"{arm}.log")
    finished.write_text(digest.hexdigest())
    return folder / "last.ckpt"


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for everything (default: demo-out)")
    parser.add_argument("overrides", nargs="*", help="overrides for both trainings, e.g. trainer.max_epochs=20")
    args = parser.parse_args()
    out: Path = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    hessian_tool = SCRIPTS / "nequip-hessian"
    converted, store = out / "converted.zarr", out / "demo.zarr"

    print("\n== 1. Convert the raw outputs: each Hessian is held against physics ==")
    options = ["-o", converted, "--without-hessian", "--group", "none", "--overwrite", "--rows", "12"]
    run([hessian_tool, "convert", HERE / "raw", *options])
    print("\n== 2. Add the split by whole reactions, and validate ==")
    run([sys.executable, HERE / "build.py", "--converted", converted, "-o", store, "--overwrite"])
    run([hessian_tool, "validate", store])
    print("\n== 3. Train on energies and forces, then on energies, forces and Hessians ==")
    models = [f"{arm}={train(arm, store, out, args.overrides)}" for arm in ARMS]
    print("\n== 4. Evaluate both on reactions that neither has seen ==")
    run([hessian_tool, "evaluate", *models, store, "-o", out / "report"])
    print(f"\nDone in {(time.monotonic() - start) / 60:.1f} minutes. Open {shown(out / 'report' / 'report.html')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
