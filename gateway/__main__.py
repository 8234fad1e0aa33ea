"""`python -m dragoman`: the command, for when its script is not on the path."""

import sys

from dragoman.gateway.cli import main

sys.exit(main())
