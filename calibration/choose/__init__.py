"""Which layers are in 8 bits: what each saves, what each harms."""
