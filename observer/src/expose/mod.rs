//! Prometheus text over HTTP (`--metrics-listen`): the latest meters, and the observer's own numbers.
//!
//! The task that owns the pipeline writes a board and hands out copies; whoever serves never waits for it, nor it for
//! them.
pub mod board; // what is shown
mod own; // this process as the kernel sees it
pub mod page; // a board as a page
mod server; // HTTP, with limits
mod text; // Prometheus' format

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::kernel::costs::Costs;
use crate::report::Report;
use board::Board;
use board::Counts;
use page::About;

/// How old a page may be that is handed out again: many scrapers cost no more than one.
const PAGE_AGE: Duration = Duration::from_secs(1);

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("--metrics-listen: cannot listen on {address}: {source}: {}", remedy(.source))]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

const REMEDIES: [(io::ErrorKind, &str); 3] = [
    (io::ErrorKind::AddrInUse, "another program has this port, maybe another sw-observe: choose another"),
    (io::ErrorKind::AddrNotAvailable, "this host has no such address: choose one of its own"),
    (io::ErrorKind::PermissionDenied, "choose a port from 1024"),
];

fn remedy(source: &io::Error) -> &'static str {
    let known = REMEDIES.iter().find(|(kind, _)| *kind == source.kind());
    known.map_or("choose another address", |(_, remedy)| remedy)
}

/// A port that is ours and that nobody answers yet.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens; connections wait until somebody serves. Must be called in a tokio runtime.
    pub fn bind(address: SocketAddr) -> Result<Listener, ListenError> {
        let bound = std::net::TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        match bound {
            Ok(listener) => Ok(Listener { listener, address }),
            Err(source) => Err(ListenError { address, source }),
        }
    }

    /// Serves from now on. Without `costs` the page does not say what the programs cost.
    pub fn serve(self, about: About, costs: Option<Costs>) -> Exposer {
        let address = self.address;
        tracing::info!("serving numbers on http://{address}/metrics");
        if !address.ip().is_loopback() {
            tracing::warn!(
                "--metrics-listen: {address} is not loopback: whoever reaches it can read the names of services and hosts"
            );
        }
        let (shown, latest) = watch::channel(Arc::default());
        let pages = Pages { about, costs, latest, made: Mutex::new(None) };
        let task = tokio::spawn(server::serve(self.listener, Arc::new(pages)));
        Exposer { board: Board::default(), shown, task }
    }
}

/// The board, and who serves copies of it until this is dropped.
pub struct Exposer {
    board: Board,
    shown: watch::Sender<Arc<Board>>,
    task: JoinHandle<()>,
}

impl Exposer {
    /// Takes what a report says; shown after the next [`Exposer::publish`].
    pub fn take(&mut self, report: &Report) {
        self.board.take(report);
    }

    /// Shows what was taken, and these counts. Never waits.
    pub fn publish(&mut self, counts: Counts) {
        self.board.counts = counts;
        self.shown.send_replace(Arc::new(self.board.clone()));
    }
}

impl Drop for Exposer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes pages of the latest board.
struct Pages {
    about: About,
    costs: Option<Costs>,
    latest: watch::Receiver<Arc<Board>>,
    made: Mutex<Option<(Instant, Bytes)>>,
}

impl Pages {
    /// The page; one that was just made is handed out again.
    async fn latest(&self) -> Bytes {
        let mut made = self.made.lock().await;
        match &*made {
            Some((at, page)) if at.elapsed() < PAGE_AGE => page.clone(),
            _ => {
                let board = Arc::clone(&self.latest.borrow());
                let costs = self.costs.as_ref().map(Costs::read);
                let page = Bytes::from(page::page(&self.about, &board, costs.as_deref(), own::read()));
                *made = Some((Instant::now(), page.clone()));
                page
            }
        }
    }
}

#[cfg(test)]
mod tests;
