//! The origin, the floor and the clients of the benchmarks.

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

mod burst;
mod fill;
mod floor;
mod listen;
mod origin;
mod pass;
mod plain;
mod streams;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Parts of a measurement that must cost little beside what is measured.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// The origin that everything measured stands in front of.
    Origin(origin::Arguments),
    /// What a cache of hyper and moka costs that does nothing else: no freshness, no Vary, no limit, no log.
    Floor(floor::Arguments),
    /// What a proxy of hyper costs that does nothing else.
    Pass(pass::Arguments),
    /// What large answers cost without an HTTP library, from memory or by sendfile.
    Plain(plain::Arguments),
    /// Many requests for one URL in the same moment; how long each took.
    Burst(burst::Arguments),
    /// Every object of a range once.
    Fill(fill::Arguments),
    /// Load over HTTP/2 without TLS.
    Streams(streams::Arguments),
}

/// Where a server listens.
#[derive(clap::Args)]
struct Listen {
    /// Loopback address with port.
    #[arg(long)]
    listen: SocketAddr,
    /// Threads that serve.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().part {
        Part::Origin(arguments) => origin::run(arguments),
        Part::Floor(arguments) => floor::run(arguments),
        Part::Pass(arguments) => pass::run(arguments),
        Part::Plain(arguments) => plain::run(arguments),
        Part::Burst(arguments) => burst::run(&arguments),
        Part::Fill(arguments) => fill::run(&arguments),
        Part::Streams(arguments) => streams::run(&arguments),
    }
}
