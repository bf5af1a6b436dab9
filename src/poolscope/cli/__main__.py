"""
``python -m poolscope.cli``.
"""

import sys

from poolscope.cli import main

sys.exit(main())
