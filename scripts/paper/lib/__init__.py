"""What the scripts of this folder share: the paper's numbers, its networks, tables and figures.

A script finds it because Python puts the folder of the script that it runs on its path.
"""
