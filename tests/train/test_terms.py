import numpy as np
import pytest
import torch
from algebra import geometry, predict, symmetric
from ase import Atoms
from ase.build import bulk, molecule
from nequip.data import AtomicDataDict
from small_models import NEQUIP, SYMBOLS, frame
from springs import spring_network

import nequip_hessian.model as ours
from nequip_hessian.analysis.accuracy import geometry_errors
from nequip_hessian.analysis.prediction import Prediction
from nequip_hessian.analysis.summary import summarise
from nequip_hessian.data import HessianProbes
from nequip_hessian.data.settings import parse
from nequip_hessian.errors import ConfigError
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.train import (
    EnergyForceHessianLoss,
    EnergyForceHessianMetrics,
    EnergyForceMassWeightedHessianLoss,
    EnergyForceStressHessianLoss,
    EnergyForceStressHessianMetrics,
    HessianFigure,
    HessianHuber,
    HessianMeanAbsoluteErrorTerm,
    HessianMeanSquaredError,
)
from nequip_hessian.train.spectra import FIGURES

pytestmark = pytest.mark.filterwarnings("ignore:.*do not sum to zero")  # random matrices are no Hessians

WATER, REFERENCE, MODEL = molecule("H2O"), symmetric(9, 0), symmetric(9, 1)
DIFFERENCE = MODEL - REFERENCE


def term(metric, options, **extra):
    out = HessianProbes(**options)(geometry(WATER, REFERENCE, **extra))
    batch = AtomicDataDict.with_batch_(out)
    return float(metric(predict(out, [MODEL]), batch))


def test_absolute_and_huber_errors_are_those_of_elements():
    full = {"mode": "full", "max_atoms": 4}
    assert term(HessianMeanAbsoluteErrorTerm(), full) == pytest.approx(np.mean(np.abs(DIFFERENCE)), rel=1e-12)
    size = np.abs(DIFFERENCE)
    huber = np.where(size <= 0.7, 0.5 * size**2, 0.7 * (size - 0.35))
    assert term(HessianHuber(0.7), full) == pytest.approx(huber.mean(), rel=1e-12)
    found = [term(HessianHuber(0.7), {"mode": "columns", "k": 2, "seed": seed}) for seed in range(300)]
    assert np.mean(found) == pytest.approx(huber.mean(), abs=5 * np.std(found) / np.sqrt(300))


@pytest.mark.parametrize("options", [{"mode": "random"}, {"mode": "modes"}, {"mode": "columns", "project": True}])
def test_absolute_errors_of_other_probes_are_refused_before_and_in_training(options):
    for metric in (HessianMeanAbsoluteErrorTerm(), HessianHuber(1.0)):
        with pytest.raises(ConfigError, match="absolute errors"):
            metric.check_probes(parse(options))
        with pytest.raises(ConfigError, match="absolute errors"):
            term(metric, options)


def test_row_weights_by_atom_type():
    weights = np.repeat([3.0, 1.0, 1.0], 3)  # O, H, H
    options = {"normalise": "share", "per_type_coeffs": {"H": 1.0, "O": 3.0}, "type_names": ["H", "O"]}
    types = torch.tensor([1, 0, 0])
    metric = HessianMeanSquaredError(**options)
    expected = np.sum(weights[:, None] * DIFFERENCE**2) / weights.sum() / 9
    full = {"mode": "full", "max_atoms": 3}
    assert term(metric, full, atom_types=types) == pytest.approx(expected, rel=1e-12)
    sampled = [term(metric, {"mode": "random", "seed": seed}, atom_types=types) for seed in range(400)]
    assert np.mean(sampled) == pytest.approx(expected, abs=5 * np.std(sampled) / 20)
    same = HessianMeanSquaredError(per_type_coeffs={"H": 2.0, "O": 2.0}, type_names=["H", "O"])
    assert term(same, full, atom_types=types) == pytest.approx(np.mean(DIFFERENCE**2), rel=1e-12)
    with pytest.raises(ConfigError, match="no atom types"):
        term(metric, full)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hessian_error": "rmse"}, "mse, mae, huber"),
        ({"huber_delta": 1.0}, "no meaning"),
        ({"hessian_error": "huber"}, "give huber_delta"),
        ({"hessian_error": "huber", "huber_delta": 0.0}, "above 0"),
        ({"normalise": "mean"}, "share"),
        ({"per_type_hessian_coeffs": {"H": 1.0}}, "one weight for each of H, C, N, O, Al"),
        ({"per_type_hessian_coeffs": dict.fromkeys(SYMBOLS, 0.0)}, "above 0"),
    ],
)
def test_options_that_cannot_be_honoured_are_errors(options, message):
    with pytest.raises(ConfigError, match=message):
        EnergyForceHessianLoss(type_names=SYMBOLS, **options)


def test_names_of_the_terms():
    assert "hessian_huber" in EnergyForceHessianLoss(hessian_error="huber", huber_delta=1.0)
    assert "hessian_mae" in EnergyForceHessianLoss(hessian_error="mae")
    assert "mass_weighted_hessian_mse" in EnergyForceMassWeightedHessianLoss()
    assert {"stress_mse", "hessian_mse"} <= set(EnergyForceStressHessianLoss())
    assert "stress_rmse" in EnergyForceStressHessianMetrics()
    with pytest.raises(ConfigError, match="larger it is"):
        EnergyForceHessianMetrics({"imaginary_agreement": 1.0})
    with pytest.raises(ConfigError, match="coeffs"):
        EnergyForceMassWeightedHessianLoss({"total_energy": 1.0, "forces": 1.0, "hessian": 1.0})


def test_stress_and_hessian_of_a_crystal():
    """Each term is the mean square of its own residual; a molecule, or a missing stress, is left out."""
    model = ours.NequIPGNNModel(**NEQUIP)
    crystal = bulk("Al", cubic=True)
    crystal.rattle(0.05, seed=1)
    probes = HessianProbes("random", 1, seed=1)

    def labelled(atoms, stress):
        data = frame(atoms, keep_cell=True)
        n = len(atoms)
        data |= {"total_energy": torch.zeros(1), "forces": torch.zeros(n, 3), "stress": torch.full((1, 3, 3), stress)}
        return probes({**data, "hessian": torch.tensor(symmetric(3 * n, 0))})

    loss = EnergyForceStressHessianLoss(type_names=SYMBOLS)
    box = Atoms("OH", positions=[[0, 0, 0], [0, 0, 1.0]])
    batch = AtomicDataDict.batched_from_list([labelled(crystal, 0.25), labelled(crystal, np.nan), labelled(box, 0.25)])
    out = model(dict(batch))
    terms = loss(out, dict(batch))
    expected = float((out["stress"][0] - 0.25).square().mean())
    assert terms["stress_mse"].item() == pytest.approx(expected, rel=1e-12)
    residual = (out["hessian_product"] - batch["hessian_product"]).square().detach()
    each = [residual[:4].mean(), residual[4:8].mean(), residual[8:].mean()]
    assert terms["hessian_mse"].item() == pytest.approx(float(np.mean(each)), rel=1e-12)
    terms["weighted_sum"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    del batch["stress"]
    with pytest.raises(ConfigError, match="no stress"):
        loss(out, batch)


def test_spectra_are_those_of_the_matrices():
    """Scaling the Hessian by s^2 scales frequencies by s, and mirrors nothing else."""
    atoms = molecule("H2O")
    from nequip_hessian.curvature import normal_modes

    _, _, hessian = spring_network(3, 0, stretched=0.0)
    positions = spring_network(3, 0, stretched=0.0)[0]
    atoms.positions = positions
    wavenumbers, _ = normal_modes(hessian, positions, atoms.get_masses())
    full = HessianProbes("full", max_atoms=4)
    for forces, count in ((0.0, len(wavenumbers)), (0.1, 0)):
        data = full(geometry(atoms, hessian, forces=torch.full((3, 3), forces)))
        preds, batch = predict(data, [1.21 * hessian]), AtomicDataDict.with_batch_(data)
        metric = HessianFigure("frequency_mae")
        metric.update(preds, batch)
        assert float(metric.count) == count
        if count:
            assert float(metric.compute()) == pytest.approx(0.1 * np.mean(np.abs(wavenumbers)), rel=1e-8)
        eigenvalues = np.linalg.eigvalsh(hessian)
        for metric, expected in (
            (HessianFigure("eigenvalue_mae"), 0.21 * np.mean(np.abs(eigenvalues))),
            (HessianFigure("eigenvalue_1_mae"), 0.21 * abs(eigenvalues[0])),
            (HessianFigure("imaginary_agreement"), 1.0),
        ):
            assert float(metric(preds, batch)) == pytest.approx(expected, rel=1e-8, abs=1e-10)
    upside_down = predict(data, [-hessian])
    assert float(HessianFigure("imaginary_agreement")(upside_down, batch)) == 0.0


def test_figures_of_a_test_run_are_those_of_an_evaluation():
    """Two random molecules in one batch: each figure is that of `summarise`, whatever it is weighted with."""
    rng = np.random.default_rng(2)
    full, frames, matrices, errors = HessianProbes("full", max_atoms=6), [], [], []
    for n_atoms, seed in ((5, 1), (4, 2)):
        positions, _, hessian = spring_network(n_atoms, seed)
        atoms = Atoms("CHONH"[:n_atoms], positions)
        noise = rng.normal(size=hessian.shape)
        matrices.append(hessian + noise + noise.T)
        frames.append(full(geometry(atoms, hessian, forces=torch.zeros((n_atoms, 3)))))
        record = LabelledGeometry(numbers=atoms.numbers, positions=positions, hessian=hessian)
        errors.append(
            geometry_errors(record, Prediction(0.0, np.zeros((n_atoms, 3)), matrices[-1]), atoms.get_masses())
        )
    batch = AtomicDataDict.batched_from_list(frames)
    preds = predict(batch, matrices)
    expected = summarise(errors)
    for name in FIGURES:
        assert float(HessianFigure(name)(preds, batch)) == pytest.approx(expected[name].value, rel=1e-8), name
    with pytest.raises(ConfigError, match="expected one of"):
        HessianFigure("force_mae")


def test_spectra_need_the_full_matrix():
    for options in ({"mode": "random"}, {"mode": "columns", "k": 9}, {"mode": "full", "project": True}):
        with pytest.raises(ConfigError, match="whole matrix"):
            HessianFigure("frequency_mae").check_probes(parse(options))
    out = HessianProbes("columns", 9)(geometry(WATER, REFERENCE))
    with pytest.raises(ConfigError, match="whole matrix"):
        HessianFigure("eigenvalue_mae")(predict(out, [MODEL]), AtomicDataDict.with_batch_(out))
