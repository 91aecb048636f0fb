"""`python -m mmsearch`: the command line without its script on the path."""

import sys

from mmsearch.cli.entry import main

sys.exit(main())
