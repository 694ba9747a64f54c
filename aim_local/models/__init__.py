"""Vision-language families: how media become visual tokens, one file per family behind one protocol."""
