"""`python -m oneiro` is `oneiro`; `torchrun ... -m oneiro train RECIPE` trains in several processes."""

import sys

from oneiro.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
