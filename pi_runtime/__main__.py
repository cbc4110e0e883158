"""`python -m pi_runtime` is `clue-pi`."""

from pi_runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
