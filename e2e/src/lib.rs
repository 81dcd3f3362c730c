//! Whole clusters, faults, and the tests that keep the house tidy.
