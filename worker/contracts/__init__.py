"""The wire contracts: events in, verdicts, quarantine records and dead letters out."""
