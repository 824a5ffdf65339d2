//! A client that asks for more than gunicorn's own workers can answer: `flood_worker.py` does.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::thread;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

/// A request without a body.
const REQUEST: &[u8] = b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// The answer of `flood_server.c`.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Threads of the client: the processors are for the others, too.
const THREADS: u32 = 1;
/// Connections of each thread.
const CONNECTIONS: u32 = 32;
/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Requests per second; none is as many as are answered.
    pub rate: Option<u32>,
    /// Requests that a connection sends before it reads their answers.
    pub depth: u32,
    /// How long.
    pub lasts: Duration,
}

/// What was answered: how many requests, in which time.
pub fn sent(address: SocketAddr, flood: Flood) -> Result<(u64, Duration), String> {
    let begin = Instant::now();
    let threads: Vec<_> = (0..THREADS).map(|_| thread::spawn(move || one(address, flood))).collect();
    let joined = threads.into_iter().map(|thread| {
        let answered = thread.join().map_err(|_| "a client thread panicked".to_owned())?;
        answered.map_err(|error| format!("the flood's server does not answer: {error}"))
    });
    let answered: u64 = joined.sum::<Result<u64, String>>()?;
    Ok((answered, begin.elapsed()))
}

fn one(address: SocketAddr, flood: Flood) -> io::Result<u64> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let connection = TcpStream::connect(address)?;
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connections.push(connection);
    }
    let requests = REQUEST.repeat(flood.depth as usize);
    let wanted = ANSWER.repeat(flood.depth as usize);
    let mut answers = wanted.clone();
    let pause = flood.rate.map(|rate| Duration::from_secs(1) * flood.depth * CONNECTIONS * THREADS / rate);
    let (mut answered, begin) = (0, Instant::now());
    let mut next = begin;
    while begin.elapsed() < flood.lasts {
        for connection in &mut connections {
            connection.write_all(&requests)?;
        }
        for connection in &mut connections {
            connection.read_exact(&mut answers)?;
            if answers != wanted {
                return Err(io::Error::other(String::from_utf8_lossy(&answers)));
            }
        }
        answered += u64::from(flood.depth * CONNECTIONS);
        if let Some(pause) = pause {
            next += pause;
            sleep(next.saturating_duration_since(Instant::now()));
        }
    }
    Ok(answered)
}
