//! A Redis and a PostgreSQL of one's own, on free ports in a folder.
