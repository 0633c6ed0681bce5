//! Blobstore: an allocator of blobs over a block device, crash safe within SPDK's format v3.
