//! Listeners, and a runtime for each core.

use std::{future::Future, net::SocketAddr, thread};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    task::{LocalSet, spawn_local},
};

const BACKLOG: i32 = 4_096;

/// Binds; several sockets share the port if each says so.
pub(crate) fn bind(address: SocketAddr, is_shared: bool) -> anyhow::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    socket.set_nonblocking(true)?;
    socket
        .bind(&address.into())
        .with_context(|| format!("cannot bind {address}"))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves each connection on the thread whose listener took it.
pub(crate) fn serve_on_each_core<F, C>(listen: &crate::Listen, serve: F) -> anyhow::Result<()>
where
    F: Fn(TcpStream) -> C + Clone + Send + 'static,
    C: Future<Output = ()> + 'static,
{
    let threads: Vec<_> = (0..listen.threads)
        .map(|_| {
            let (serve, listener) = (serve.clone(), bind(listen.listen, true)?);
            Ok(thread::spawn(move || accept(listener, &serve)))
        })
        .collect::<anyhow::Result<_>>()?;
    for thread in threads {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    }
    Ok(())
}

fn accept<F, C>(listener: std::net::TcpListener, serve: &F) -> anyhow::Result<()>
where
    F: Fn(TcpStream) -> C,
    C: Future<Output = ()> + 'static,
{
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true)?;
                spawn_local(serve(stream));
            }
        }
    })
}
