"""What the tests of phid share: a client that knows the API document, and a daemon of a test's own."""
