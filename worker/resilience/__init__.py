"""Telling "a dependency is away" from "this one request is bad", for the store and the judge."""
