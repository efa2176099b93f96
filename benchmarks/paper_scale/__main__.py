"""`python -m benchmarks.paper_scale` measures speed and memory at the paper's size."""

import sys

from benchmarks.paper_scale.paper_scale import main

sys.exit(main())
