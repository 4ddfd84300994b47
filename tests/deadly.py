"""An ASE calculator that a test can make slow or let kill its process, as what goes wrong in a worker does."""

import os
import signal
import time
from pathlib import Path

from ase.calculators.emt import EMT


class Deadly(EMT):
    """EMT; the process dies at carbon monoxide while the file `flag` is there.

    Args:
        flag: a file; while it exists, CO kills the process
        pause: seconds before each answer
        log: a file that gets a line for each calculation: formula and process
    """

    def __init__(self, flag=None, pause=0.0, log=None):
        super().__init__()
        self.flag, self.pause, self.log = flag, pause, log

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        time.sleep(self.pause)
        if self.log:
            with Path(self.log).open("a") as stream:
                stream.write(f"{atoms.get_chemical_formula()} {os.getpid()}\n")
        if self.flag and Path(self.flag).exists() and atoms.get_chemical_formula() == "CO":
            os.kill(os.getpid(), signal.SIGKILL)
        super().calculate(atoms, properties, system_changes)
