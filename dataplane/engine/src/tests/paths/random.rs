//! A random world against a simple reference.
