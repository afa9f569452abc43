"""`python -m recsys_utils.pipeline`, which ./run_all.sh calls."""

import sys

from recsys_utils.pipeline.runner import main

sys.exit(main())
