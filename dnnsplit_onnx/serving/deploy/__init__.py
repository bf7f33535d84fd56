"""Tiers started elsewhere: compose files, model repositories, local processes."""
