"""The HTTP service: one model behind OpenAI's chat completions, and a page that talks to it."""
