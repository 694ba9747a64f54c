"""Local, quantised, fast video-language models."""
