"""NequIP's global state and float64 for every test of the train room."""

from small_models import nequip_state  # noqa: F401  (an autouse fixture)
