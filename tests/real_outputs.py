"""Where the folder of real outputs is; a module of its own, since several folders have a conftest."""

from pathlib import Path

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
