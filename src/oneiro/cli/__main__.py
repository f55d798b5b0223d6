"""`python -m oneiro.cli` is `oneiro`."""

import sys

from oneiro.cli.main import main

sys.exit(main())
