//! How the generator's clients reach a server: a connected datagram socket, or a connection that carries many queries at once.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};

use crate::mmsg::Batch;

/// Octets of answers that are read at a time.
const READ_OCTETS: usize = 64 << 10;

/// By what queries go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    /// Datagrams.
    Udp,
    /// Connections, many queries on each.
    Tcp,
}

/// One client's way to the server; nothing here waits.
pub(crate) enum Link {
    /// Datagrams.
    Udp(UdpSocket),
    /// A connection.
    Tcp(Connection),
}

/// A connection with what is on its way.
pub(crate) struct Connection {
    stream: TcpStream,
    // Written by us, not yet taken by the kernel.
    out: Vec<u8>,
    // Read, but less than a message.
    read: Vec<u8>,
    server: SocketAddr,
}

impl Link {
    /// Connects.
    pub(crate) fn connect(transport: Transport, server: SocketAddr) -> io::Result<Link> {
        match transport {
            Transport::Udp => {
                let socket = UdpSocket::bind(("127.0.0.1", 0))?;
                let raw = socket2::SockRef::from(&socket);
                raw.set_recv_buffer_size(4 << 20)?;
                raw.set_send_buffer_size(4 << 20)?;
                socket.connect(server)?;
                Ok(Link::Udp(socket))
            }
            Transport::Tcp => Connection::open(server).map(Link::Tcp),
        }
    }

    /// Sends the first `count` of the batch; how many were taken.
    pub(crate) fn send(&mut self, batch: &mut Batch, count: usize) -> io::Result<usize> {
        match self {
            Link::Udp(socket) => batch.send(socket, count),
            Link::Tcp(connection) => {
                for i in 0..count {
                    let query = batch.get(i);
                    connection
                        .out
                        .extend((query.len() as u16).to_be_bytes().iter().chain(query));
                }
                connection.flush()?;
                Ok(count)
            }
        }
    }

    /// Hands over what an earlier `send` could not.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Link::Udp(_) => Ok(()),
            Link::Tcp(connection) => connection.flush(),
        }
    }

    /// Calls `each` with every answer that is there.
    pub(crate) fn receive(
        &mut self,
        batch: &mut Batch,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        match self {
            Link::Udp(socket) => {
                let received = batch.receive(socket)?;
                (0..received).for_each(|i| each(batch.get(i)));
                Ok(())
            }
            Link::Tcp(connection) => {
                connection.flush()?;
                connection.receive(each)
            }
        }
    }
}

impl Connection {
    fn open(server: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            out: Vec::new(),
            read: Vec::new(),
            server,
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // It is closed; `receive` opens another one, and what was asked on this one is lost.
                Err(_) => self.out.clear(),
            }
        }
        Ok(())
    }

    fn receive(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let had = self.read.len();
        self.read.resize(had + READ_OCTETS, 0);
        let more = match self.stream.read(&mut self.read[had..]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Ok(0) | Err(_) => {
                *self = Connection::open(self.server)?;
                return Ok(());
            }
            Ok(more) => more,
        };
        self.read.truncate(had + more);
        let mut rest = &self.read[..];
        while let [high, low, body @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some((answer, behind)) = body.split_at_checked(length) else {
                break;
            };
            each(answer);
            rest = behind;
        }
        let done = self.read.len() - rest.len();
        self.read.drain(..done);
        Ok(())
    }
}
