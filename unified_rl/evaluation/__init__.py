"""Suites that measure a policy, and the files in which they write what they found."""
