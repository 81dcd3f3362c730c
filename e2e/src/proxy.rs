//! A TCP proxy between a worker and its coordinator that can be told to misbehave as networks do.
//!
//! It knows nothing of what the bytes mean.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// How much is passed on at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// What happens to bytes on their way in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// They pass.
    Open,
    /// They wait, and arrive late.
    Held,
    /// They vanish. Their connection is of no use afterwards and breaks when the weather clears.
    Lost,
}

/// What happens in both directions. A connection that is made while either is not open comes about
/// when both are: its handshake needs both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// From the worker.
    pub to_coordinator: Flow,
    /// To the worker.
    pub to_worker: Flow,
}

impl Weather {
    /// Everything passes.
    pub const CLEAR: Self = Self { to_coordinator: Flow::Open, to_worker: Flow::Open };
    /// Nothing passes, and what is sent is lost.
    pub const PARTITION: Self = Self { to_coordinator: Flow::Lost, to_worker: Flow::Lost };
    /// The coordinator does not hear the worker.
    pub const DEAF_COORDINATOR: Self = Self { to_coordinator: Flow::Lost, to_worker: Flow::Open };
    /// The worker does not hear the coordinator.
    pub const DEAF_WORKER: Self = Self { to_coordinator: Flow::Open, to_worker: Flow::Lost };
    /// Nothing passes, and everything arrives late.
    pub const STALL: Self = Self { to_coordinator: Flow::Held, to_worker: Flow::Held };
}

/// What every connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Orders {
    weather: Weather,
    /// How often all connections were cut so far.
    n_cuts: u64,
}

/// A running proxy. Dropping it cuts every connection.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    n_stopped: Arc<AtomicU64>,
    // Its one thread ends when it is dropped.
    _runtime: Runtime,
}

impl Proxy {
    /// Starts a proxy on a free loopback port, before what listens at `target`.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let (orders, told) = watch::channel(Orders { weather: Weather::CLEAR, n_cuts: 0 });
        let n_stopped = Arc::new(AtomicU64::new(0));
        runtime.spawn(accept(listener, target, told, Arc::clone(&n_stopped)));
        Ok(Self { address, orders, n_stopped, _runtime: runtime })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets the weather change.
    pub fn set(&self, weather: Weather) {
        self.orders.send_modify(|orders| orders.weather = weather);
    }

    /// Cuts every connection; new ones are taken.
    pub fn cut(&self) {
        self.orders.send_modify(|orders| orders.n_cuts += 1);
    }

    /// How many pieces were held or lost so far: with it a test waits until the weather was felt.
    pub fn n_stopped(&self) -> u64 {
        self.n_stopped.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    told: watch::Receiver<Orders>,
    n_stopped: Arc<AtomicU64>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let (told, n_stopped) = (told.clone(), Arc::clone(&n_stopped));
        tokio::spawn(async move {
            // A connection that breaks is what this is for.
            serve(client, target, told, &n_stopped).await.ok();
        });
    }
}

/// One connection until it ends or is cut.
async fn serve(
    client: TcpStream,
    target: SocketAddr,
    mut told: watch::Receiver<Orders>,
    n_stopped: &AtomicU64,
) -> io::Result<()> {
    let n_cuts = told.borrow().n_cuts;
    let is_clear = |orders: &Orders| orders.weather == Weather::CLEAR;
    if told.wait_for(is_clear).await.is_err() {
        return Ok(());
    }
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let up = pump(from_client, to_server, told.clone(), |w| w.to_coordinator, n_stopped);
    let down = pump(from_server, to_client, told.clone(), |w| w.to_worker, n_stopped);
    let is_cut = |orders: &Orders| orders.n_cuts != n_cuts;
    tokio::select! {
        ended = async { tokio::try_join!(up, down) } => ended.map(|_| ()),
        _ = told.wait_for(is_cut) => Ok(()),
    }
}

/// Passes one direction on. The error ends the connection.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut told: watch::Receiver<Orders>,
    of: fn(&Weather) -> Flow,
    n_stopped: &AtomicU64,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut has_lost = false;
    let gone = |_| io::Error::from(io::ErrorKind::ConnectionAborted);
    loop {
        // A piece that comes meets the weather of that moment.
        let n_bytes = tokio::select! {
            n_bytes = from.read(&mut chunk) => n_bytes?,
            changed = told.changed() => {
                changed.map_err(gone)?;
                if has_lost && of(&told.borrow().weather) == Flow::Open {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                continue;
            }
        };
        let flow = of(&told.borrow().weather);
        match flow {
            Flow::Open => {}
            Flow::Held => {
                n_stopped.fetch_add(1, Ordering::Relaxed);
                let is_open = |orders: &Orders| of(&orders.weather) == Flow::Open;
                told.wait_for(is_open).await.map_err(gone)?;
            }
            Flow::Lost => {
                n_stopped.fetch_add(1, Ordering::Relaxed);
                has_lost = true;
                if n_bytes == 0 {
                    // Its end is lost too: the other side finds out when the weather clears.
                    let is_open = |orders: &Orders| of(&orders.weather) == Flow::Open;
                    told.wait_for(is_open).await.map_err(gone)?;
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                continue;
            }
        }
        if n_bytes == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..n_bytes]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::wait_for;

    /// A client, and the server's end of its connection through a proxy.
    fn connected() -> (Proxy, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).unwrap();
        let client = TcpStream::connect(proxy.address()).unwrap();
        let (server, _) = listener.accept().unwrap();
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        }
        (proxy, client, server)
    }

    fn hear(end: &mut TcpStream, n_bytes: usize) -> String {
        let mut bytes = vec![0; n_bytes];
        end.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn wait_until_stopped(proxy: &Proxy, n_stopped: u64) {
        wait_for("the weather to be felt", 20, || (proxy.n_stopped() == n_stopped).then_some(()));
    }

    #[test]
    fn what_is_held_in_one_direction_arrives_late_and_the_other_direction_passes() {
        let (proxy, mut client, mut server) = connected();
        client.write_all(b"one").unwrap();
        assert_eq!(hear(&mut server, 3), "one");
        proxy.set(Weather { to_coordinator: Flow::Held, to_worker: Flow::Open });
        client.write_all(b"two").unwrap();
        wait_until_stopped(&proxy, 1);
        server.write_all(b"hello").unwrap();
        assert_eq!(hear(&mut client, 5), "hello");
        proxy.set(Weather::CLEAR);
        assert_eq!(hear(&mut server, 3), "two");
    }

    #[test]
    fn a_connection_that_lost_something_breaks_when_the_weather_clears() {
        let (proxy, mut client, mut server) = connected();
        proxy.set(Weather::DEAF_COORDINATOR);
        client.write_all(b"lost").unwrap();
        wait_until_stopped(&proxy, 1);
        server.write_all(b"heard").unwrap();
        assert_eq!(hear(&mut client, 5), "heard");
        proxy.set(Weather::CLEAR);
        let mut rest = Vec::new();
        // Broken or ended, but nothing of what was lost.
        drop(server.read_to_end(&mut rest));
        assert_eq!(rest, b"");
    }

    #[test]
    fn a_cut_ends_the_connections_and_new_ones_are_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).unwrap();
        let mut first = TcpStream::connect(proxy.address()).unwrap();
        let (_server, _) = listener.accept().unwrap();
        proxy.cut();
        let mut rest = Vec::new();
        drop(first.read_to_end(&mut rest));
        assert_eq!(rest, b"");
        let mut second = TcpStream::connect(proxy.address()).unwrap();
        second.write_all(b"again").unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!(hear(&mut server, 5), "again");
    }

    #[test]
    fn a_connection_made_in_a_partition_comes_about_when_it_heals() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).unwrap();
        proxy.set(Weather::DEAF_WORKER);
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        client.write_all(b"late").unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody connects in a partition");
        proxy.set(Weather::CLEAR);
        let (mut server, _) = wait_for("the connection", 20, || listener.accept().ok());
        server.set_nonblocking(false).unwrap();
        assert_eq!(hear(&mut server, 4), "late");
    }
}
