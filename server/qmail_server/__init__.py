"""The processes around the engine: servers, surfaces and command line."""
