error: No such option: --rm; see `aim-local models --help`
