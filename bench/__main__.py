import sys

from handloom.bench.command import main

sys.exit(main())
