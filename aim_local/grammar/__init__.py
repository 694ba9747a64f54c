"""Grammars (GBNF) of answers: those that people write, and those of JSON schemas. llama.cpp draws by them (native/)."""
