"""What a machine does: stages of a run apart, settings paired with unreduced runs and with unpatched llama.cpp."""
