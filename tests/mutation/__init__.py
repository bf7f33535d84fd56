"""Mutation testing: faults put into the package on purpose, and whether the tests notice them."""
