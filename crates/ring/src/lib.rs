//! Queues between cores: message slots, rings, the sleep and wake handshake.
