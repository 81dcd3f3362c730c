//! The command line of Gradus.
