//! Reactors, threads, messages, tasks, pollers, channels, checked locks.
