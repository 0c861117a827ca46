"""``python -m prunus`` is the command `prunus`."""

import sys

from prunus.apps.cli.main import main

sys.exit(main())
