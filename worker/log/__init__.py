"""The log core: records in, outputs and offsets out in one transaction, in input order."""
