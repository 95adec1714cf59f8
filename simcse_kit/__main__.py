"""`python -m simcse_kit` is the command `simcse`."""

from simcse_kit.cli.main import main

if __name__ == "__main__":
    main()
