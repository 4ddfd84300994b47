"""Loss terms against linear algebra: the "model" is a matrix, so that thousands of draws take a second."""

import numpy as np
import torch
from nequip.data import AtomicDataDict

from nequip_hessian.train.products import mean_over_geometries, product_residuals


def symmetric(n, seed):
    matrix = np.random.default_rng(seed).normal(size=(n, n))
    return (matrix + matrix.T) / 2


def geometry(atoms, reference, **extra):
    """Data of one geometry with its Hessian, eV/angstrom^2."""
    return {
        "pos": torch.tensor(atoms.positions),
        "atomic_numbers": torch.tensor(atoms.numbers, dtype=torch.long),
        "hessian": torch.tensor(reference),
        **extra,
    }


def predict(data, hessians, atoms=None):
    """Outputs of a model whose Hessian is known: products of all atoms, and forces of zero."""
    batch = AtomicDataDict.with_batch_(dict(data))
    probes = batch["hessian_probe"]
    out = torch.zeros_like(probes)
    starts = np.concatenate([[0], np.cumsum(batch["num_atoms"].numpy())])
    for start, end, hessian in zip(starts[:-1], starts[1:], hessians, strict=True):
        rows = probes[start:end].reshape(end - start, -1, 3).permute(0, 2, 1).reshape(3 * (end - start), -1)
        product = torch.as_tensor(hessian) @ rows
        out[start:end] = product.reshape(end - start, 3, -1).permute(0, 2, 1).reshape(end - start, -1)
    return {"hessian_product": out, "forces": torch.zeros(len(probes), 3)}


def draws(metric, transform, data, hessian, count):
    """Values of a loss term over as many draws of the probes: one a geometry of a batch of copies."""
    batch = AtomicDataDict.batched_from_list([transform(dict(data)) for _ in range(count)])
    preds = predict(batch, [hessian] * count)
    residual, mask = product_residuals(preds, batch, mass_weighted=metric.mass_weighted)
    means, _ = mean_over_geometries(residual.square(), mask, batch)
    values = (means * batch["hessian_weight"].view(-1)).numpy()
    np.testing.assert_allclose(float(metric(preds, batch)), values.mean(), rtol=1e-12)
    return values


def theory(difference, distribution, k):
    """Expectation and variance of (1/k) sum (1/n)|A v|^2 for a symmetric A (n, n)."""
    n = len(difference)
    q = difference @ difference
    trace, squares, diagonal = np.trace(q), np.sum(q**2), np.sum(np.diag(q) ** 2)
    variance = {
        "rademacher": 2 * (squares - diagonal) / n**4 / k,
        "sphere": 2 * n / (n + 2) * (squares - trace**2 / n) / n**4 / k,
        "columns": (n * diagonal - trace**2) / n**4 * (n - k) / ((n - 1) * k),
    }[distribution]
    return trace / n**2, variance
