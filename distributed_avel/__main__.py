"""`python -m distributed_avel` is `avel`."""

from distributed_avel.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
