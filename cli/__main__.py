"""`python -m aim_local.cli`: the same as `aim-local`."""

from . import main

if __name__ == "__main__":
    main()
