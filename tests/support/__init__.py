"""Material shared by tests: small models of every framework jeff reads."""
