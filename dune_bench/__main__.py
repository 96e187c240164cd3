"""`python -m dune_bench` is the same as `dune-bench`."""

from dune_bench.cli.main import main

if __name__ == "__main__":
    main()
