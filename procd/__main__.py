"""`python -m procd` is `procd`."""

from procd.cli.main import main

if __name__ == "__main__":
    main()
