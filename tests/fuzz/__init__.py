"""Damaged files by the thousand for every reader: targets make and read them, a driver runs them in child processes.

    PYTHONPATH=tests python -m fuzz --minutes 10        all targets, two children at once; `make fuzz` calls this
    PYTHONPATH=tests python -m fuzz --replay FILE       what one file does, with all of its traceback

A target is a file in targets/ (see `target.py`). Findings lie in findings/NAME/; tests/test_fuzz.py reads them again.
"""
