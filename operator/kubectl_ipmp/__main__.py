"""`python -m kubectl_ipmp`."""

import sys

from kubectl_ipmp.cli import main

sys.exit(main())
