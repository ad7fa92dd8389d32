//! Programs the tests need that are not ours: found, or installed into the cache.
