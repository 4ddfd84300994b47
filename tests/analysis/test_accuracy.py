import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from springs import spring_network
from xtb_models import hydrogen_cyanide, xtb

from nequip_hessian.analysis.accuracy import (
    composition_shift,
    geometry_errors,
    hessian_errors,
    is_stationary,
    record_vibrations,
)
from nequip_hessian.analysis.prediction import Prediction, masses_of, predict, refuse_unknown_elements
from nequip_hessian.analysis.summary import METRICS, apply_shift, confusion, summarise
from nequip_hessian.errors import ConfigError, RecordError
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.units import HARTREE_PER_BOHR2, WAVENUMBER

NUMBERS = np.array([1, 6, 7, 8, 1])


def record_of(seed=1, **changes):
    positions, forces, hessian = spring_network(5, seed)
    fields = {"numbers": NUMBERS, "positions": positions, "energy": -3.0, "forces": forces, "hessian": hessian}
    return LabelledGeometry(**(fields | changes))


def exact(record):
    return Prediction(record.energy, np.array(record.forces), np.array(record.hessian))


def errors_of(record, prediction):
    return geometry_errors(record, prediction, masses_of(record.numbers))


def test_a_perfect_model_has_no_error_and_full_agreement():
    errors = [errors_of(record_of(seed), exact(record_of(seed))) for seed in range(3)]
    figures = summarise(errors)
    assert list(figures) == list(METRICS)
    for name, figure in figures.items():
        if figure.value is None:
            continue
        wanted = 1.0 if METRICS[name].better == "higher" else 0.0
        assert figure.value == pytest.approx(wanted, abs=1e-9), name
        assert figure.n > 0


def test_errors_are_those_that_were_put_in():
    record = record_of()
    truth = exact(record)
    shift = 0.25 * np.eye(15)
    error = errors_of(record, Prediction(truth.energy + 0.5, truth.forces + 0.1, truth.hessian + shift))
    assert error.energy == pytest.approx(0.5)
    assert error.force_mae == pytest.approx(0.1)
    assert error.force_rmse == pytest.approx(0.1)
    assert error.force_count == 15
    hessian = error.hessian
    assert hessian.mae == pytest.approx(0.25 / 15)
    assert hessian.rmse == pytest.approx(0.25 / np.sqrt(15))
    assert hessian.relative == pytest.approx(0.25 * np.sqrt(15) / np.linalg.norm(record.hessian))
    # c * identity moves every eigenvalue by c and turns no eigenvector
    assert hessian.spectrum.mae == pytest.approx(0.25)
    assert hessian.spectrum.first == pytest.approx(0.25)
    assert hessian.spectrum.second == pytest.approx(0.25)
    assert hessian.spectrum.cosine_1 == pytest.approx(1.0)
    figures = summarise([error])
    assert figures["energy_per_atom_mae"].value == pytest.approx(0.1)
    assert figures["eigenvalue_mae_atomic"].value == pytest.approx(0.25 / HARTREE_PER_BOHR2)
    assert figures["hessian_rmse"].n == 225


def test_a_turned_eigenvector_and_a_flipped_sign_have_the_figures_computed_by_hand():
    """The two lowest modes are turned into each other by 0.3 rad, the lowest eigenvalue changes its sign."""
    record = record_of()
    masses = masses_of(record.numbers)
    root = np.sqrt(np.repeat(masses, 3))
    modes = record_vibrations(record, record.hessian, masses)
    values = np.sign(modes.wavenumbers) * (modes.wavenumbers / WAVENUMBER) ** 2
    vectors = modes.modes.copy()
    c, s = np.cos(0.3), np.sin(0.3)
    vectors[:, :2] = modes.modes[:, :2] @ np.array([[c, -s], [s, c]])
    changed = values.copy()
    changed[0] = -abs(values[0]) if values[0] > 0 else -2 * abs(values[0])
    inner = vectors @ np.diag(changed) @ vectors.T
    truth = modes.modes @ np.diag(values) @ modes.modes.T
    clean = record.replace(hessian=truth * root[:, None] * root[None])
    error = hessian_errors(clean, inner * root[:, None] * root[None], masses)
    assert error.projected.cosine_1 == pytest.approx(c, abs=1e-9)
    assert error.projected.cosine_2 == pytest.approx(c, abs=1e-9)
    assert error.projected.first == pytest.approx(abs(changed[0] - values[0]), rel=1e-9)
    assert error.projected.second == pytest.approx(0, abs=1e-9)
    assert error.projected.mae == pytest.approx(abs(changed[0] - values[0]) / len(values), rel=1e-9)
    assert error.projected_mae == pytest.approx(np.mean(np.abs(inner - truth)), rel=1e-9)
    assert error.projected_rmse == pytest.approx(np.sqrt(np.mean((inner - truth) ** 2)), rel=1e-9)
    assert error.projected_relative == pytest.approx(np.linalg.norm(inner - truth) / np.linalg.norm(values), rel=1e-9)
    assert error.negative == (int(np.sum(values < 0)), int(np.sum(changed < 0)))
    figures = summarise([errors_of(clean, Prediction(-3.0, record.forces, inner * root[:, None] * root[None]))])
    assert figures["negative_agreement"].value == float(error.negative[0] == error.negative[1])
    assert figures["projected_hessian_rmse"].value == pytest.approx(error.projected_rmse)


def test_projected_figures_do_not_see_rigid_motions():
    record = record_of()
    from nequip_hessian.curvature import rigid_motions

    masses = masses_of(record.numbers)
    root = np.sqrt(np.repeat(masses, 3))
    rigid = rigid_motions(record.positions, masses) * root[:, None]
    error = hessian_errors(record, record.hessian + 3.0 * rigid @ rigid.T, masses)
    assert error.mae > 1
    assert error.projected_mae == pytest.approx(0, abs=1e-9)
    assert error.projected.mae == pytest.approx(0, abs=1e-9)
    assert error.vibrations.frequency_mae == pytest.approx(0, abs=1e-6)


def test_figures_do_not_depend_on_the_frame():
    record = record_of()
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(15, 15))
    model = Prediction(-2.0, record.forces + 0.1 * rng.normal(size=(5, 3)), record.hessian + noise + noise.T)
    rotation = Rotation.random(random_state=1).as_matrix()
    big = np.kron(np.eye(5), rotation)
    turned = record_of(
        positions=record.positions @ rotation.T,
        forces=record.forces @ rotation.T,
        hessian=big @ record.hessian @ big.T,
    )
    first = errors_of(record, model).hessian
    second = errors_of(turned, Prediction(-2.0, model.forces @ rotation.T, big @ model.hessian @ big.T)).hessian
    for name in ("rmse", "relative", "projected_relative", "imaginary", "negative"):
        assert getattr(first, name) == pytest.approx(getattr(second, name), rel=1e-8)
    for name in ("mae", "first", "second", "cosine_1", "cosine_2"):
        for part in ("spectrum", "projected"):
            assert getattr(getattr(first, part), name) == pytest.approx(getattr(getattr(second, part), name), rel=1e-6)


def test_the_choice_of_degenerate_vectors_does_not_lower_the_cosine():
    record = hydrogen_cyanide()["reactant"]
    masses = masses_of(record.numbers)
    # the two bends of a linear molecule: turn the model about the axis, the spectrum is the same
    axis = record.positions[2] - record.positions[1]
    rotation = Rotation.from_rotvec(0.7 * axis / np.linalg.norm(axis)).as_matrix()
    big = np.kron(np.eye(3), rotation)
    symmetric = (
        sum(
            np.kron(np.eye(3), Rotation.from_rotvec(a * axis / np.linalg.norm(axis)).as_matrix())
            @ record.hessian
            @ np.kron(np.eye(3), Rotation.from_rotvec(a * axis / np.linalg.norm(axis)).as_matrix()).T
            for a in np.arange(4) * np.pi / 2
        )
        / 4
    )
    error = hessian_errors(record.replace(hessian=symmetric), big @ symmetric @ big.T * 1.02, masses)
    assert error.projected.cosine_1 == pytest.approx(1.0, abs=1e-4)
    assert error.projected.cosine_2 == pytest.approx(1.0, abs=1e-4)


def test_a_composition_shift_is_removed_and_nothing_else():
    rng = np.random.default_rng(0)
    per_element = {1: -13.0, 6: -1000.0, 8: -2000.0}
    compositions = [np.array(z) for z in ([1, 1], [6, 8], [6, 1, 1, 8], [8, 1, 1], [6, 1, 1, 1, 1], [1, 8], [6, 6, 1])]
    noise = 0.01 * rng.normal(size=len(compositions))
    errors = [sum(per_element[int(x)] for x in z) + e for z, e in zip(compositions, noise, strict=True)]
    shift = composition_shift(compositions, errors)
    left = np.array([e - shift[z].sum() for z, e in zip(compositions, errors, strict=True)])
    counts = np.stack([np.bincount(z, minlength=9) for z in compositions])
    # what is left is the noise minus its own composition-like part
    np.testing.assert_allclose(left, noise - counts @ np.linalg.lstsq(counts, noise, rcond=None)[0], atol=1e-8)
    assert composition_shift(compositions[:2], errors[:2]) is None
    assert composition_shift([], []) is None


def test_energies_relative_to_one_another_survive_the_shift():
    records = [record_of(seed, energy=float(seed)) for seed in range(4)]
    errors = [errors_of(r, Prediction(r.energy + 7.0, r.forces, r.hessian)) for r in records]
    shifted = apply_shift(errors, [r.numbers for r in records])
    assert summarise(shifted)["energy_mae"].value == pytest.approx(7.0)
    assert summarise(shifted)["shifted_energy_mae"].value == pytest.approx(0.0, abs=1e-9)


def test_unknown_forces_are_left_out():
    record = record_of()
    forces = np.array(record.forces)
    forces[1] = np.nan
    error = errors_of(record.replace(forces=forces), Prediction(-3.0, record.forces + 0.2, record.hessian))
    assert error.force_count == 12
    assert error.force_mae == pytest.approx(0.2)
    nothing = errors_of(record.replace(forces=None, energy=None, hessian=None), exact(record))
    assert (nothing.energy, nothing.force_mae, nothing.hessian) == (None, None, None)
    assert summarise([nothing])["force_mae"].n == 0


class Broken:
    """A model that fails on one geometry in a given way, through the whole chain of predict()."""

    def __init__(self, bad, how):
        self.bad, self.how = bad, how

    def evaluate_many(self, images):
        answers = []
        for atoms in images:
            is_bad = atoms.info["charge"] == self.bad
            if is_bad and self.how == "raises":
                raise RuntimeError("out of luck\nsecond line")
            forces = np.zeros((len(atoms) - (is_bad and self.how == "shape"), 3))
            answers.append((np.nan if is_bad and self.how == "nan" else 0.0, forces))
        return answers

    def get_hessians(self, images):
        bad = [atoms.info["charge"] == self.bad and self.how == "hessian" for atoms in images]
        return [np.full((15, 15), np.nan if b else 1.0) for b in bad]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raises", "RuntimeError: out of luck"),
        ("nan", "finite"),
        ("shape", "shape"),
        ("hessian", "Hessian is not finite"),
    ],
)
def test_a_failed_prediction_is_counted_and_enters_no_mean(how, reason):
    records = [record_of(seed, charge=seed) for seed in range(4)]
    predictions = predict(Broken(2, how), records)
    assert [p.failure is None for p in predictions] == [True, True, False, True]
    assert reason in predictions[2].failure
    assert "\n" not in predictions[2].failure
    errors = [errors_of(r, p) for r, p in zip(records, predictions, strict=True)]
    figures = summarise(errors)
    assert figures["failure_rate"].value == 0.25
    assert figures["hessian_mae"].n == 3
    assert figures["imaginary_agreement"].n == 4  # a failure is a disagreement
    assert sum(row[-1] for row in confusion(errors)) == 1
    assert np.sum(confusion(errors)) == 4


def test_a_reference_of_another_shape_raises():
    record = record_of()
    with pytest.raises(RecordError, match=r"expected shape \(12, 12\), found \(15, 15\)"):
        hessian_errors(record, np.zeros((12, 12)), masses_of(record.numbers))
    with pytest.raises(RecordError, match="found none"):
        hessian_errors(record.replace(hessian=None), np.zeros((15, 15)), masses_of(record.numbers))


def test_the_saddle_order_of_real_stationary_points():
    records = list(hydrogen_cyanide().values())
    errors = [errors_of(r, p) for r, p in zip(records, predict(xtb("GFN1-xTB"), records), strict=True)]
    assert confusion(errors) == [[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert summarise(errors)["imaginary_agreement"].value == 1.0
    assert summarise(errors)["frequency_mae"].n == 4 + 4 + 3
    assert all(is_stationary(r) for r in records)
    assert all(is_stationary(r.replace(kind=None)) for r in records)
    assert not is_stationary(record_of())


def test_masses_and_unknown_elements():
    assert masses_of(np.array([17]), "isotopic")[0] == pytest.approx(34.96885, abs=1e-4)
    assert masses_of(np.array([17]), "standard")[0] == pytest.approx(35.45, abs=1e-2)
    assert masses_of(np.array([1]), "source", np.array([2.014]))[0] == 2.014
    with pytest.raises(ConfigError, match="masses: expected one of standard, isotopic, source, found 'average'"):
        masses_of(np.array([1]), "average")

    class Knows:
        species = ("H", "C")

    with pytest.raises(ConfigError, match="mine: the model has not seen N, O"):
        refuse_unknown_elements(Knows(), [[1, 6, 7], [8]], "mine")
    refuse_unknown_elements(Knows(), [[1, 6], [8]], "mine")
