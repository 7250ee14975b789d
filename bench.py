"""The command line from a checkout: ``python bench.py --help``. Installed, it is called ``mlrpl-bench``."""

from mlrpl_bench.cli.app import main

if __name__ == "__main__":
    main()
