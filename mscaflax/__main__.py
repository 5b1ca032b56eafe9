"""`python -m mscaflax COMMAND`: the command line without the installed script."""

import sys

from mscaflax.cli import main

sys.exit(main())
