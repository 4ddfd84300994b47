"""Run any validator over the fixtures: `python tests/conformance/run.py [--only TEXT] -- COMMAND...`.

The path of a fixture is appended to the command, which prints one JSON object
{"valid": bool, "message": str, "rule": str or null} and may print more keys.
valid/ and warning/ must come out valid, invalid/ invalid, and by the rule that
its name begins with. Exit status 0 if all of them do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def fixtures() -> list[tuple[Path, bool, str | None]]:
    """All fixtures: path, whether it is valid, and the rule that must speak if it is not."""
    found = []
    for folder in ("valid", "warning", "invalid"):
        for path in sorted((HERE / folder).iterdir()):
            valid = folder != "invalid"
            found.append((path, valid, None if valid else path.name.split("_")[0]))
    return found


def verdict(command: list[str], path: Path) -> dict:
    """What a command says of a fixture."""
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        return {"valid": None, "message": f"no JSON on stdout: {done.stdout[-200:]} {done.stderr[-200:]}", "rule": None}


def main(argv: list[str] | None = None) -> int:
    """Run and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only fixtures whose name contains this")
    parser.add_argument("command", nargs="+", help="validator, e.g. -- nequip-hessian validate --json")
    args = parser.parse_args(argv)
    chosen = [fixture for fixture in fixtures() if args.only in fixture[0].name]
    wrong = 0
    for path, valid, rule in chosen:
        found = verdict(args.command, path)
        good = found.get("valid") is valid and (valid or found.get("rule") == rule)
        wrong += not good
        if not good:
            print(f"{path.parent.name}/{path.name}: expected {valid} {rule}, found {found.get('valid')} "
                  f"{found.get('rule')} {found.get('message')}")  # fmt: skip
    print(f"{len(chosen) - wrong} of {len(chosen)} fixtures as expected")
    return 1 if wrong or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
