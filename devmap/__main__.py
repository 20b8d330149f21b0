"""`python -m devmap`: the same as the `devmap` command."""

from devmap.cli.main import main

if __name__ == "__main__":
    main()
