"""`python -m postroom.front.cli`: the same as the console script, whatever the PATH."""

from postroom.front.cli import main

if __name__ == "__main__":
    main()
