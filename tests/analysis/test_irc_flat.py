"""A side of a reaction coordinate that comes over a flat point, or stops there: a curve with a shoulder."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from nequip_hessian.analysis.irc import intrinsic_reaction_coordinate
from nequip_hessian.analysis.irc_job import follow, open_journal
from nequip_hessian.potentials import ForeignPotential
from nequip_hessian.report.irc import irc_section, irc_table, write_irc
from nequip_hessian.report.job_figures import irc_plot

TOP, SHOULDER, MINIMA = 2.0, 0.6, (-0.6, 1.4)  # angstrom, the last two from the top
SLOPE = np.polynomial.Polynomial.fromroots
# of the energy, eV/angstrom: none at the top and the minima, 0.01 at the shoulder
FORCE = 8 * SLOPE([0.0, *MINIMA]) * (SLOPE([SHOULDER, SHOULDER]) + 0.01 / (8 * 0.6 * 0.8 * 1.2))
ENERGY = FORCE.integ()


class Curve(Calculator):
    """Energy of two atoms by their distance."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        bond = self.atoms.positions[1] - self.atoms.positions[0]
        length = np.linalg.norm(bond)
        pull = FORCE(length - TOP) * bond / length
        self.results = {"energy": float(ENERGY(length - TOP)), "forces": np.array([pull, -pull])}


@pytest.fixture
def curve():
    return ForeignPotential(Curve(), "curve")


@pytest.fixture
def top():
    return Atoms("N2", [[0, 0, 0], [0, 0, TOP]])


def long_side(path):
    return max(
        (path.forward, path.reverse), key=lambda side: np.linalg.norm(np.diff(side.minimum.atoms.positions, axis=0))
    )


def test_the_walk_goes_on_past_a_flat_point(curve, top):
    path = intrinsic_reaction_coordinate(top, curve)
    side = long_side(path)
    lengths = np.linalg.norm(side.positions[:, 1] - side.positions[:, 0], axis=1)
    largest = np.linalg.norm(side.forces, axis=2).max(axis=1)
    assert np.min(largest[np.abs(lengths - TOP - SHOULDER) < 0.1]) < 0.02  # where it would have stopped
    assert lengths[-1] == pytest.approx(TOP + MINIMA[1], abs=0.01)
    assert side.ended == "forces below 0.02 eV/Å"
    assert np.all(np.diff(side.energies) < 0)
    assert side.fall < 1e-3
    assert path.shortfalls == []
    assert "Both sides end at minima" in irc_section(path, {})


def test_interrupted_past_the_flat_point_it_ends_the_same(curve, top, tmp_path):
    settings = {"step": 0.05, "points": 400, "fmax": 0.02, "hessian_every": 5}
    whole = follow(top, curve, open_journal(tmp_path / "whole", "curve", top, settings), **settings)
    first = len(whole.forward)
    for after in (first - 5, 12):
        left = [after]

        def stop(left=left):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            follow(top, curve, open_journal(tmp_path / "cut", "curve", top, settings), on_step=stop, **settings)
    again = follow(top, curve, open_journal(tmp_path / "cut", "curve", top, settings), **settings)
    np.testing.assert_array_equal(again.arc, whole.arc)
    np.testing.assert_array_equal(again.energies, whole.energies)


def test_a_path_that_stops_at_a_flat_point_says_what_is_none_of_it(curve, top, tmp_path):
    path = intrinsic_reaction_coordinate(top, curve, fmax=0.2)  # past the shoulder only where forces exceed 0.02
    side = long_side(path)
    fall = ENERGY(SHOULDER) - ENERGY(MINIMA[1])
    assert side.stopped_short
    assert side.fall == pytest.approx(fall, abs=0.01)
    assert side.shift == pytest.approx((MINIMA[1] - SHOULDER) / 2, abs=0.05)  # both atoms move half of it
    (sentence,) = path.shortfalls
    assert "side stopped at a flat point (forces below 0.02 eV/Å)" in sentence
    assert f"({side.fall:.3f} eV) above the minimum" in sentence
    assert "comes from a minimisation, not from the path" in sentence
    for text in (irc_table(path, {}), irc_section(path, {})):
        assert sentence in text
    assert "Both sides end at minima" not in irc_section(path, {})
    write_irc(tmp_path, path, {}, {})
    sides = json.loads((tmp_path / "irc.json").read_text(encoding="utf-8"))["sides"].values()
    assert sorted(one["stopped_short"] for one in sides) == [False, True]
    assert max(one["end_above_minimum_eV"] for one in sides) == pytest.approx(side.fall)
    assert max(one["end_to_minimum_rmsd_angstrom"] for one in sides) == pytest.approx(side.shift)


def test_the_plot_names_the_minima_not_the_ends_of_the_path(curve, top):
    path = intrinsic_reaction_coordinate(top, curve, fmax=0.2)
    upper, _ = irc_plot(path, ("left", "right")).axes
    places = {text.get_text(): text.xy for text in upper.texts}
    for name, side in (("left", path.reverse), ("right", path.forward)):
        assert places[name][1] == pytest.approx((side.minimum.energy - path.energy) / 0.0433641, rel=1e-5)
        assert abs(places[name][0]) >= abs(side.arc[-1])
    dotted = [line for line in upper.lines if line.get_linestyle() == ":"]
    assert len(dotted) == 2
    assert sorted(line.get_xdata()[0] for line in dotted) == pytest.approx([path.arc[0], path.arc[-1]])
