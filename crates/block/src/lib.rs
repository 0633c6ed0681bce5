//! Io, Lane, Device, and the devices written once: malloc, file, null, simulated disk.
