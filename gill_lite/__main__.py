"""`python -m gill_lite` is `gill-lite`."""

import sys

from gill_lite.cli.main import main

sys.exit(main())
