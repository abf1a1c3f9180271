"""``python -m edgevtc``."""

from edgevtc.cli import main

raise SystemExit(main())
