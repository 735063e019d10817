import sys

from handloom.cli import main

sys.exit(main())
