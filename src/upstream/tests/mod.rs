//! The forward path against real sockets on loopback, under virtual time.

mod addresses;
mod bodies;
mod exchanges;
mod outages;
mod probes;
mod support;
mod writes;
