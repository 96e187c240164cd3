"""Programs that make what the package ships.  They are never installed."""
