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
import os
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


def announce(arguments: list[str | Path]) -> None:
    """Print a command as the user would type it."""
    words = [shown(a) if isinstance(a, Path) else a for a in arguments]
    words[0] = Path(words[0]).name
    print("$", " ".join(f"'{w}'" if " " in w else w for w in words), flush=True)


def run(arguments: list[str | Path]) -> None:
    """Print a command and run it; end the demo where it fails."""
    announce(arguments)
    status = subprocess.run(list(map(str, arguments)), check=False).returncode
    if status:
        sys.exit(f"demo: the command ended with status {status}")


def fingerprint(config: Path, store: Path, overrides: list[str]) -> str:
    """SHA-256 of everything that decides how a training comes out."""
    digest = hashlib.sha256(config.read_bytes() + json.dumps(overrides).encode())
    for file in sorted(store.rglob("*")):
        if file.is_file() and file.name != "zarr.json":
            digest.update(file.read_bytes())
    return digest.hexdigest()


def train_all(store: Path, out: Path, overrides: list[str]) -> dict[str, Path]:
    """Train both models side by side, one core each; a finished one of an earlier demo is taken as it is.

    Returns:
        name of the model -> its last checkpoint.
    """
    running = {}
    for arm, name in ARMS.items():
        config = ROOT / "configs" / f"{name}.yaml"
        folder, mark = out / arm, fingerprint(config, store, overrides)
        finished = folder / "finished"
        if finished.is_file() and finished.read_text() == mark:
            print(f"{arm}: trained already, in {shown(folder)}")
            continue
        finished.unlink(missing_ok=True)
        command: list[str | Path] = [SCRIPTS / "nequip-train", "-cp", config.parent, "-cn", config.stem]
        command += [f"store={store}", f"hydra.run.dir={folder}", *overrides]
        announce(command)
        running[arm] = (command, out / f"{arm}.log", finished, mark)
    if running:
        _follow(running)
    return {arm: out / arm / "last.ckpt" for arm in ARMS}


def _follow(running: dict[str, tuple[list[str | Path], Path, Path, str]]) -> None:
    """Run the trainings, output in log files, a progress bar over the epochs of each."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = {}
    for position, (arm, (command, log, _, _)) in enumerate(running.items()):
        with log.open("wb") as sink:
            process = subprocess.Popen(list(map(str, command)), stdout=sink, stderr=subprocess.STDOUT, env=environment)
        processes[arm] = (process, tqdm(desc=f"{arm:6}", total=epochs_of(arm), unit="epoch", position=position), log)
    try:
        while any(process.poll() is None for process, _, _ in processes.values()):
            time.sleep(0.5)
            for _, bar, log in processes.values():
                _advance(bar, log)
    except KeyboardInterrupt:
        for process, _, _ in processes.values():
            process.terminate()
            process.wait()
        sys.exit("\n\ndemo: interrupted; the same command goes on with the steps that are left")
    for arm, (process, bar, log) in processes.items():
        bar.close()
        if process.returncode:
            sys.exit(f"\ndemo: training {arm} ended with status {process.returncode}; its output is in {shown(log)}")
        _, _, finished, mark = running[arm]
        finished.write_text(mark)


def epochs_of(arm: str) -> int:
    """Number of epochs in the configuration of an arm."""
    text = (ROOT / "configs" / f"{ARMS[arm]}.yaml").read_text()
    return int(re.findall(r"max_epochs: (\d+)", text)[0])


def _advance(bar: tqdm[None], log: Path) -> None:
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 20000, 0))
        tail = file.read().decode(errors="replace")
    total = re.findall(r"max_epochs=(\d+)` reached", tail)
    epochs = re.findall(r"Epoch (\d+):", tail)
    done = int(total[-1]) if total else int(epochs[-1]) if epochs else 0
    bar.update(max(done - bar.n, 0))


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
    models = [f"{arm}={checkpoint}" for arm, checkpoint in train_all(store, out, args.overrides).items()]
    print("\n== 4. Evaluate both on what neither has seen: other reactions, and other points of known ones ==")
    run([hessian_tool, "evaluate", *models, store, "-o", out / "report", "--neb-steps", "150"])
    print(f"\nDone in {(time.monotonic() - start) / 60:.1f} minutes. Open {shown(out / 'report' / 'report.html')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
