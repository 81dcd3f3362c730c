//! The program on a machine that carries out assignments: an agent and its trainer children.
