"""The native edge: the only folder with ctypes. Loads our libllama and libmtmd, and declares what they offer."""
