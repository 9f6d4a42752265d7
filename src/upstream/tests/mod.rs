//! The forward path against real sockets on loopback, under virtual time.

mod addresses;
mod bodies;
mod connections;
mod exchanges;
mod http2;
mod outages;
mod probes;
mod support;
mod writes;
