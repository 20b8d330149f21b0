"""`python -m devmap`: the same as the `devmap` command.

Python puts the current folder first among the places that it imports from. That is the folder that is
checked, and a stranger's file in it may be named like a module of ours or of a library: it is taken out
before anything more is imported.
"""

import sys

if not sys.flags.safe_path and sys.path and __name__ == "__main__":
    del sys.path[0]

from devmap.cli.main import main

if __name__ == "__main__":
    main()
