"""One file per reader: seeds, mutate and read. What they must look like: fuzz/target.py."""
