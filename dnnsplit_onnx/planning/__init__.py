"""Who runs what: seconds and rules of a model on machines, planners, and the one price of every plan."""
