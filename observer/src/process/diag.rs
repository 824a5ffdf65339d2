//! What the kernel says of sockets, asked by netlink (`sock_diag(7)`) inside one network namespace.
use std::fs::File;
use std::io;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::Path;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_core::NLM_F_REQUEST;
use netlink_packet_core::NetlinkHeader;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::AF_INET;
use netlink_packet_sock_diag::constants::AF_INET6;
use netlink_packet_sock_diag::constants::IPPROTO_TCP;
use netlink_packet_sock_diag::constants::TCP_CLOSE_WAIT;
use netlink_packet_sock_diag::inet::ExtensionFlags;
use netlink_packet_sock_diag::inet::InetRequest;
use netlink_packet_sock_diag::inet::SocketId;
use netlink_packet_sock_diag::inet::StateFlags;
use netlink_packet_sock_diag::unix;
use netlink_packet_sock_diag::unix::ShowFlags;
use netlink_packet_sock_diag::unix::UnixRequest;
use netlink_packet_sock_diag::unix::nlas::Nla;
use netlink_packet_sock_diag::unix::nlas::UnixDiagName;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use rustix::thread::LinkNameSpaceType;

/// Larger than the kernel makes a part of an answer (`NLMSG_GOODSIZE`, at most 32 KiB).
const PART_BYTES: usize = 64 << 10;
/// Rows of one answer that are looked at; what a kernel says beyond is read and passed over.
const ROWS: usize = 1 << 17;

/// Where a socket is bound to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bound {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket's path, or `@` and its abstract name.
    Unix(String),
}

/// A socket. For one that listens `queue` is the connections that wait to be accepted and `limit` its backlog; for a
/// connection `queue` is the bytes that nobody has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) bound: Bound,
    pub(super) inode: u32,
    pub(super) queue: u32,
    pub(super) limit: u32,
}

impl Row {
    /// The port of a TCP socket.
    pub(super) fn port(&self) -> Option<u16> {
        if let Bound::Tcp(address) = self.bound { Some(address.port()) } else { None }
    }
}

/// A netlink socket: it stays in the namespace that it was made in.
pub(super) struct Diag {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Diag {
    /// A socket in the network namespace of this path, made by a thread that ends afterwards: a namespace belongs to
    /// the thread. Needs `CAP_SYS_ADMIN`.
    pub(super) fn open(namespace: &Path) -> io::Result<Diag> {
        let file = File::open(namespace)?;
        let made = std::thread::Builder::new().spawn(move || {
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Socket::new(NETLINK_SOCK_DIAG)
        })?;
        let socket = made.join().map_err(|_| io::Error::other("the thread that entered it panicked"))??;
        socket.set_non_blocking(true)?; // the kernel answers at once, or not at all
        Ok(Diag { socket, buffer: Vec::with_capacity(PART_BYTES), sequence: 0 })
    }

    /// Every TCP socket that listens.
    pub(super) fn tcp_listeners(&mut self) -> io::Result<Vec<Row>> {
        self.tcp(&StateFlags::LISTEN, 0, |_| true)
    }

    /// Every accepted TCP connection with unread bytes, on the side of this port; 0 is any.
    pub(super) fn tcp_unread(&mut self, port: u16) -> io::Result<Vec<Row>> {
        // One that nobody has accepted yet has no inode.
        self.tcp(&(StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT), port, |row| {
            row.inode != 0 && row.queue > 0
        })
    }

    fn tcp(&mut self, states: &StateFlags, port: u16, keep: impl Fn(&Row) -> bool) -> io::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (family, any) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            let request = InetRequest {
                family,
                protocol: IPPROTO_TCP,
                extensions: ExtensionFlags::empty(),
                states: states.clone(),
                socket_id: SocketId { source_port: port, ..any },
            };
            let asked = self.ask(SockDiagMessage::InetRequest(request), |answer| {
                if let SockDiagMessage::InetResponse(answer) = answer {
                    let found = &answer.header;
                    // The end of the stream takes a number of its own.
                    let end = u32::from(found.state == TCP_CLOSE_WAIT);
                    let (ip, port) = (found.socket_id.source_address, found.socket_id.source_port);
                    let row = Row {
                        bound: Bound::Tcp(SocketAddr::new(IpAddr::to_canonical(&ip), port)),
                        inode: found.inode,
                        queue: found.recv_queue.saturating_sub(end),
                        limit: found.send_queue,
                    };
                    rows.extend(Some(row).filter(&keep));
                }
            });
            match asked {
                Err(error) if family == AF_INET6 && error.kind() == ErrorKind::NotFound => {} // a kernel without IPv6
                asked => asked?,
            }
        }
        Ok(rows)
    }

    /// Every Unix socket that listens and has a name.
    pub(super) fn unix_listeners(&mut self) -> io::Result<Vec<Row>> {
        self.unix(unix::StateFlags::LISTEN)
    }

    /// Every named end of a Unix connection that somebody has accepted and that has unread bytes: it has the name of
    /// the listener that it came by.
    pub(super) fn unix_unread(&mut self) -> io::Result<Vec<Row>> {
        let mut rows = self.unix(unix::StateFlags::ESTABLISHED)?;
        rows.retain(|row| row.inode != 0 && row.queue > 0);
        Ok(rows)
    }

    fn unix(&mut self, state_flags: unix::StateFlags) -> io::Result<Vec<Row>> {
        let show_flags = ShowFlags::NAME | ShowFlags::RQLEN;
        let request = UnixRequest { state_flags, inode: 0, show_flags, cookie: [0xff; 8] };
        let mut rows = Vec::new();
        let asked = self.ask(SockDiagMessage::UnixRequest(request), |answer| {
            let SockDiagMessage::UnixResponse(answer) = answer else { return };
            let (mut name, mut queue, mut limit) = (None, 0, 0);
            for part in &answer.nlas {
                match part {
                    Nla::Name(UnixDiagName::Pathname(path)) => {
                        name = Some(path.to_string_lossy().into_owned())
                    }
                    Nla::Name(UnixDiagName::Abstract(bytes)) => {
                        name = Some(format!("@{}", String::from_utf8_lossy(bytes)));
                    }
                    Nla::ReceiveQueueLength(waits, most) => (queue, limit) = (*waits, *most),
                    Nla::Vfs(_)
                    | Nla::Peer(_)
                    | Nla::PendingConnections(_)
                    | Nla::MemInfo(_)
                    | Nla::Shutdown(_)
                    | Nla::Other(_) => {}
                }
            }
            let row = |name| Row { bound: Bound::Unix(name), inode: answer.header.inode, queue, limit };
            rows.extend(name.map(row));
        });
        match asked {
            Err(error) if error.kind() == ErrorKind::NotFound => {} // a kernel without unix_diag
            asked => asked?,
        }
        Ok(rows)
    }

    /// Asks, and hands each row of the answer on.
    fn ask(&mut self, request: SockDiagMessage, mut each: impl FnMut(SockDiagMessage)) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, request.into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut rows = 0;
        loop {
            self.buffer.clear();
            let size = self.socket.recv(&mut self.buffer, 0)?;
            let mut part = self.buffer.get(..size).unwrap_or_default();
            while !part.is_empty() {
                let Some((length, own)) = framed(part) else {
                    return Err(io::Error::new(ErrorKind::InvalidData, "a message without an end"));
                };
                // A row that the crate cannot read is one that nothing is known of.
                if let Ok(message) = NetlinkMessage::<SockDiagMessage>::deserialize(own) {
                    if let NetlinkPayload::Done(_) = message.payload {
                        return Ok(());
                    }
                    if let NetlinkPayload::Error(error) = message.payload {
                        return Err(error.to_io());
                    }
                    if let NetlinkPayload::InnerMessage(row) = message.payload
                        && rows < ROWS
                    {
                        rows += 1;
                        each(row);
                    }
                }
                part = part.get(length..).unwrap_or_default();
            }
        }
    }
}

/// The first message of a part: how far the next one is away, and its bytes (`struct nlmsghdr`, aligned to four).
fn framed(part: &[u8]) -> Option<(usize, &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*part.first_chunk()?)).ok()?;
    let own = part.get(..length).filter(|own| own.len() >= 16)?;
    Some((length.next_multiple_of(4), own))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::net::TcpStream;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::UnixListener;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A socket in the namespace of the tests, which needs no capability when it is not entered.
    fn own() -> Diag {
        let socket = Socket::new(NETLINK_SOCK_DIAG).unwrap();
        Diag { socket, buffer: Vec::with_capacity(PART_BYTES), sequence: 0 }
    }

    #[test]
    fn a_tcp_queue_is_counted_and_so_are_unread_connections() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else { continue };
            let address = listener.local_addr().unwrap();
            let mut clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
            clients.iter_mut().for_each(|client| client.write_all(b"hello").unwrap());
            let mut diag = own();
            let found = diag.tcp_listeners().unwrap();
            let row = found.iter().find(|row| row.bound == Bound::Tcp(address)).unwrap();
            assert_eq!((row.queue, row.limit > 0), (3, true), "{row:?}");
            assert_eq!(diag.tcp_unread(address.port()).unwrap(), [], "nobody has accepted them");
            let accepted = listener.accept().unwrap().0;
            let unread = diag.tcp_unread(address.port()).unwrap();
            assert_eq!(unread.iter().map(|row| row.queue).collect::<Vec<_>>(), [5]);
            assert!(diag.tcp_unread(0).unwrap().contains(unread.first().unwrap()));
            drop((accepted, clients));
        }
    }

    #[test]
    fn a_unix_queue_is_counted() {
        let name = format!("sw-observe-diag-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let mut clients: Vec<_> = (0..2).map(|_| UnixStream::connect_addr(&address).unwrap()).collect();
        clients.iter_mut().for_each(|client| client.write_all(b"hi").unwrap());
        let bound = Bound::Unix(format!("@{name}"));
        let of = |rows: Vec<Row>| rows.into_iter().filter(|row| row.bound == bound).collect::<Vec<_>>();
        let mut diag = own();
        assert_eq!(of(diag.unix_listeners().unwrap()).first().unwrap().queue, 2);
        assert_eq!(of(diag.unix_unread().unwrap()), []);
        let accepted = listener.accept().unwrap().0;
        assert_eq!(of(diag.unix_unread().unwrap()).first().unwrap().queue, 2);
        drop((accepted, clients));
    }

    #[test]
    fn hostile_frames_have_an_end() {
        assert_eq!(framed(&[]), None);
        assert_eq!(framed(&[255; 64]), None);
        assert_eq!(framed(&[0; 64]), None);
        let mut message = vec![0; 20];
        message.splice(..4, 17_u32.to_ne_bytes());
        assert_eq!(framed(&message).map(|(next, own)| (next, own.len())), Some((20, 17)));
    }
}
