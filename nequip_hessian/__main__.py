"""Makes `python -m nequip_hessian` the same as `nequip-hessian`."""

from nequip_hessian.cli import main

raise SystemExit(main())
