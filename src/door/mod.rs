//! HTTP/1.1 over sockets.
