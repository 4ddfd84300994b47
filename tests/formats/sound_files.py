"""One sound output of each program whose files are made from text, with its companions."""

import emitters
import solid_emitters
import text_emitters


def each_format() -> dict[str, dict[str, str]]:
    """Name of the fixture -> name of a file -> its text."""
    isotopic, average = emitters.made(), emitters.made(average=True)
    return {
        "outcar": {"OUTCAR": solid_emitters.outcar(solid_emitters.alloy())},
        "outcar-free": {"OUTCAR": solid_emitters.outcar(solid_emitters.alloy((1, 3)))},
        "vasprun": {"vasprun.xml": solid_emitters.vasprun(solid_emitters.alloy((1, 3)))},
        "gamess": {"a.out": text_emitters.gamess_out(isotopic)},
        "punch": {"a.dat": text_emitters.gamess_dat(isotopic), "a.out": text_emitters.gamess_out(isotopic)},
        "molpro": {"a.out": text_emitters.molpro_out(average)},
        "turbomole": text_emitters.turbomole(average),
        "dftb": text_emitters.dftb(average),
        "jaguar": {"a.01.in": text_emitters.jaguar_in(isotopic), "a.out": text_emitters.jaguar_out(isotopic)},
        "cfour": text_emitters.cfour(isotopic),
        "aces3": {"a.out": text_emitters.aces3_out(isotopic)},
        "dalton": {"a.out": text_emitters.dalton_out(isotopic)},
        "gamess-uk": {"a.out": text_emitters.gamess_uk_out(isotopic)},
        "unimovib": {"a.umv": text_emitters.unimovib(isotopic)},
    }
