//! The HTTP API, the live streams and the page.
