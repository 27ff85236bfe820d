"""`python -m sesurgery` is the same program."""

from sesurgery.cli import main

if __name__ == "__main__":
    main()
