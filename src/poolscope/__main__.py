"""``python -m poolscope``: the command line of this interpreter's poolscope."""

import sys

from poolscope.cli import main

sys.exit(main())
