"""`python -m blemish`, for places without the console script."""

from blemish.cli import main

if __name__ == "__main__":
    main()
