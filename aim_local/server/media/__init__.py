"""The media of a request: from the parts that a client sends to files and arrays that were checked."""
