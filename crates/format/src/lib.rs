//! SPDK's Blobstore on-disk format v3: sans-I/O codec, load, recovery and check.
