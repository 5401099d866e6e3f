"""`python -m cubeopt` is `cubeopt`."""

from cubeopt.cli.main import main

if __name__ == "__main__":
    main()
