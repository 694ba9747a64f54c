"""The service over HTTP: routes, guards, bodies, answers and their description."""
