"""One pass over a prompt: plan, encode, prefill, generate."""
