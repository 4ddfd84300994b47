"""Engines that turn geometries into energy, force and Hessian labels, and the pool that runs them."""
