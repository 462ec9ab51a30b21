//! Random numbers as a function of (seed, position).
