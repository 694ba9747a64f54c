"""One file of questions over many clips: workers on this machine or on a Dask cluster, and what survives a kill.

run.py is the way in. Nothing here is imported by another module of the library but lab/ and the command line.
"""
