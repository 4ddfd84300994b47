"""The density of frequencies that the page shows."""

import numpy as np

from nequip_hessian.report.figures import BROADENING, broadened


def test_area_is_the_number_of_modes_and_the_width_that_stated():
    grid = np.linspace(-500.0, 4000.0, 9001)
    density = broadened(np.array([400.0, 1600.0, 3700.0]), grid)
    assert abs(np.trapezoid(density, grid) - 3) < 1e-9
    alone = broadened(np.array([1600.0]), grid)
    mean = np.trapezoid(alone * grid, grid)
    assert abs(mean - 1600) < 1e-6
    assert abs(np.sqrt(np.trapezoid(alone * (grid - mean) ** 2, grid)) - BROADENING) < 1e-6
