"""``python -m howsparse``."""

from howsparse.cli import main

main()
