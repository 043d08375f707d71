"""`python -m spikeback`: the command, where it is not on the path."""

from spikeback.cli.main import main

if __name__ == "__main__":
    main()
