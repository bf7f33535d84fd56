"""The planners of published systems, each as published, with its source and what had to be assumed."""
