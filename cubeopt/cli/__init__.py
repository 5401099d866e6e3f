"""The command line: parse, call, print. Only here are modules imported inside functions."""
